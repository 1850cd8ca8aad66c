//! The functions of the language: their names, what they take and what they answer.
//!
//! A table, sorted by name; the checker holds calls against it and the evaluator dispatches on [`FunctionId`]. Aggregators are
//! [`crate::ast::Aggregator`]s, not functions.

use crate::ast::ValueType;
use crate::ast::ValueType::{Matrix, Scalar, String, Vector};

/// A function of the language.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Which.
    pub id: FunctionId,
    /// As it is called, in lower case.
    pub name: &'static str,
    /// Types of its arguments; those beyond are of the last type.
    pub args: &'static [ValueType],
    /// How many arguments beyond or short of `args` there may be.
    pub variadic: Variadic,
    /// What it answers.
    pub returns: ValueType,
    /// Whether it must be switched on.
    pub experimental: bool,
}

/// How many arguments a function takes, seen from its list of types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variadic {
    /// Exactly as many as types.
    No,
    /// The last type is optional, and with it up to so many arguments come after the others.
    UpTo(u8),
    /// The last type is optional, and with it any number.
    Any,
}

/// A table of [`Function`]s, and their [`FunctionId`]s, from one list.
macro_rules! functions {
    ($($id:ident $name:literal ($($arg:ident),*) $variadic:ident $(($most:literal))? -> $returns:ident $($experimental:ident)?;)*) => {
        /// Which function.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FunctionId {
            $(#[doc = concat!("`", $name, "`")] $id,)*
        }

        /// All functions, sorted by name.
        pub static FUNCTIONS: &[Function] = &[$(Function {
            id: FunctionId::$id,
            name: $name,
            args: &[$($arg),*],
            variadic: Variadic::$variadic $(($most))?,
            returns: $returns,
            experimental: functions!(@ $($experimental)?),
        },)*];
    };
    (@) => { false };
    (@ experimental) => { true };
}

functions! {
    Abs "abs" (Vector) No -> Vector;
    Absent "absent" (Vector) No -> Vector;
    AbsentOverTime "absent_over_time" (Matrix) No -> Vector;
    Acos "acos" (Vector) No -> Vector;
    Acosh "acosh" (Vector) No -> Vector;
    Asin "asin" (Vector) No -> Vector;
    Asinh "asinh" (Vector) No -> Vector;
    Atan "atan" (Vector) No -> Vector;
    Atanh "atanh" (Vector) No -> Vector;
    AvgOverTime "avg_over_time" (Matrix) No -> Vector;
    Ceil "ceil" (Vector) No -> Vector;
    Changes "changes" (Matrix) No -> Vector;
    Clamp "clamp" (Vector, Scalar, Scalar) No -> Vector;
    ClampMax "clamp_max" (Vector, Scalar) No -> Vector;
    ClampMin "clamp_min" (Vector, Scalar) No -> Vector;
    Cos "cos" (Vector) No -> Vector;
    Cosh "cosh" (Vector) No -> Vector;
    CountOverTime "count_over_time" (Matrix) No -> Vector;
    DayOfMonth "day_of_month" (Vector) UpTo(1) -> Vector;
    DayOfWeek "day_of_week" (Vector) UpTo(1) -> Vector;
    DayOfYear "day_of_year" (Vector) UpTo(1) -> Vector;
    DaysInMonth "days_in_month" (Vector) UpTo(1) -> Vector;
    Deg "deg" (Vector) No -> Vector;
    Delta "delta" (Matrix) No -> Vector;
    Deriv "deriv" (Matrix) No -> Vector;
    DoubleExponentialSmoothing "double_exponential_smoothing" (Matrix, Scalar, Scalar) No -> Vector experimental;
    End "end" () No -> Scalar experimental;
    Exp "exp" (Vector) No -> Vector;
    FirstOverTime "first_over_time" (Matrix) No -> Vector;
    Floor "floor" (Vector) No -> Vector;
    HistogramAvg "histogram_avg" (Vector) No -> Vector;
    HistogramCount "histogram_count" (Vector) No -> Vector;
    HistogramFraction "histogram_fraction" (Scalar, Scalar, Vector) No -> Vector;
    HistogramQuantile "histogram_quantile" (Scalar, Vector) No -> Vector;
    HistogramQuantiles "histogram_quantiles" (Vector, String, Scalar, Scalar) UpTo(9) -> Vector experimental;
    HistogramStddev "histogram_stddev" (Vector) No -> Vector;
    HistogramStdvar "histogram_stdvar" (Vector) No -> Vector;
    HistogramSum "histogram_sum" (Vector) No -> Vector;
    Hour "hour" (Vector) UpTo(1) -> Vector;
    Idelta "idelta" (Matrix) No -> Vector;
    Increase "increase" (Matrix) No -> Vector;
    Info "info" (Vector, Vector) UpTo(1) -> Vector experimental;
    Irate "irate" (Matrix) No -> Vector;
    LabelJoin "label_join" (Vector, String, String, String) Any -> Vector;
    LabelReplace "label_replace" (Vector, String, String, String, String) No -> Vector;
    LastOverTime "last_over_time" (Matrix) No -> Vector;
    Ln "ln" (Vector) No -> Vector;
    Log10 "log10" (Vector) No -> Vector;
    Log2 "log2" (Vector) No -> Vector;
    MadOverTime "mad_over_time" (Matrix) No -> Vector experimental;
    MaxOf "max_of" (Scalar, Scalar) No -> Scalar experimental;
    MaxOverTime "max_over_time" (Matrix) No -> Vector;
    MinOf "min_of" (Scalar, Scalar) No -> Scalar experimental;
    MinOverTime "min_over_time" (Matrix) No -> Vector;
    Minute "minute" (Vector) UpTo(1) -> Vector;
    Month "month" (Vector) UpTo(1) -> Vector;
    Pi "pi" () No -> Scalar;
    PredictLinear "predict_linear" (Matrix, Scalar) No -> Vector;
    PresentOverTime "present_over_time" (Matrix) No -> Vector;
    QuantileOverTime "quantile_over_time" (Scalar, Matrix) No -> Vector;
    Rad "rad" (Vector) No -> Vector;
    Range "range" () No -> Scalar experimental;
    Rate "rate" (Matrix) No -> Vector;
    Resets "resets" (Matrix) No -> Vector;
    Round "round" (Vector, Scalar) UpTo(1) -> Vector;
    Scalar "scalar" (Vector) No -> Scalar;
    Sgn "sgn" (Vector) No -> Vector;
    Sin "sin" (Vector) No -> Vector;
    Sinh "sinh" (Vector) No -> Vector;
    Sort "sort" (Vector) No -> Vector;
    SortByLabel "sort_by_label" (Vector, String) Any -> Vector experimental;
    SortByLabelDesc "sort_by_label_desc" (Vector, String) Any -> Vector experimental;
    SortDesc "sort_desc" (Vector) No -> Vector;
    Sqrt "sqrt" (Vector) No -> Vector;
    Start "start" () No -> Scalar experimental;
    StartTimestamp "start_timestamp" (Vector) No -> Vector experimental;
    StddevOverTime "stddev_over_time" (Matrix) No -> Vector;
    StdvarOverTime "stdvar_over_time" (Matrix) No -> Vector;
    Step "step" () No -> Scalar experimental;
    SumOverTime "sum_over_time" (Matrix) No -> Vector;
    Tan "tan" (Vector) No -> Vector;
    Tanh "tanh" (Vector) No -> Vector;
    Time "time" () No -> Scalar;
    Timestamp "timestamp" (Vector) No -> Vector;
    TsOfFirstOverTime "ts_of_first_over_time" (Matrix) No -> Vector experimental;
    TsOfLastOverTime "ts_of_last_over_time" (Matrix) No -> Vector experimental;
    TsOfMaxOverTime "ts_of_max_over_time" (Matrix) No -> Vector experimental;
    TsOfMinOverTime "ts_of_min_over_time" (Matrix) No -> Vector experimental;
    Vector "vector" (Scalar) No -> Vector;
    Year "year" (Vector) UpTo(1) -> Vector;
}

/// The function of that name, which must be in lower case.
#[must_use]
pub fn function(name: &str) -> Option<&'static Function> {
    let at = FUNCTIONS.binary_search_by(|function| function.name.cmp(name)).ok()?;
    FUNCTIONS.get(at)
}

// === impl Variadic ===

impl Variadic {
    /// As the JSON tree writes it: 0 for none, -1 for any.
    #[must_use]
    pub fn number(self) -> i16 {
        match self {
            Self::No => 0,
            Self::UpTo(most) => most.into(),
            Self::Any => -1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_function_is_found() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name), "binary search needs order");
        for entry in FUNCTIONS {
            assert_eq!(function(entry.name).map(|found| found.id), Some(entry.id));
        }
        assert_eq!(function("Rate"), None, "names are in lower case");
    }

    #[test]
    fn variadic_functions_have_a_type_to_repeat() {
        for entry in FUNCTIONS.iter().filter(|entry| entry.variadic != Variadic::No) {
            assert!(!entry.args.is_empty(), "{}", entry.name);
        }
    }
}
