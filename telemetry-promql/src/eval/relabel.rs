//! `label_replace` and `label_join`: labels made of labels.

use regex::Captures;

use super::Evaluator;
use super::frame::{Frame, Grid, Twins, assemble};
use crate::error::QueryError;
use crate::functions::FunctionId;
use crate::labels::{Labels, NAME};
use crate::pattern::{self, Pattern};
use crate::plan::{Node, Op};

/// Bytes that a value made here may have: far more than anyone reads. Calls within calls could double it each time.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// The new value of a label, if there is one.
type MakeValue<'t> = Box<dyn Fn(&Labels) -> Result<Option<String>, QueryError> + 't>;

/// Either function.
pub(crate) fn relabel(
    evaluator: &Evaluator<'_>,
    function: FunctionId,
    args: &[Node],
    grid: Grid,
) -> Result<Frame, QueryError> {
    let texts = args.iter().skip(1).map(|arg| match &arg.op {
        Op::Text(text) => &**text,
        _ => "",
    });
    let texts: Vec<&str> = texts.collect();
    let (destination, value): (&str, MakeValue<'_>) = match (function, texts.as_slice()) {
        (FunctionId::LabelReplace, [destination, template, source, expression]) => {
            let regex = compile(expression)?;
            check("destination", destination, "label_replace")?;
            let (template, source) = (*template, *source);
            let replace = move |labels: &Labels| {
                let Some(captures) = regex.captures(labels.get(source)) else { return Ok(None) };
                expand(template, &regex, &captures).map(Some).ok_or_else(|| too_long("label_replace"))
            };
            (destination, Box::new(replace))
        }
        (FunctionId::LabelJoin, [destination, separator, sources @ ..]) => {
            for source in sources {
                check("source", source, "label_join")?;
            }
            check("destination", destination, "label_join")?;
            let join = move |labels: &Labels| {
                let values: Vec<&str> = sources.iter().map(|source| labels.get(source)).collect();
                let bytes = values.iter().map(|value| value.len() + separator.len()).sum::<usize>();
                if bytes > VALUE_BYTES_MAX.saturating_add(separator.len()) {
                    return Err(too_long("label_join"));
                }
                Ok(Some(values.join(separator)))
            };
            (destination, Box::new(join))
        }
        _ => return Err(QueryError::internal("arguments are missing")),
    };
    let mut columns = evaluator.columns(args, 0, grid)?;
    for column in &mut columns {
        evaluator.budget.check()?;
        if let Some(value) = value(&column.labels)? {
            column.labels = column.labels.with(destination, &value);
            evaluator.grow(column.labels.bytes())?;
            if destination == NAME {
                column.drop_name = false;
            }
        }
    }
    Ok(Frame::Vector(assemble(columns, Twins::Join)?))
}

fn compile(expression: &str) -> Result<Pattern, QueryError> {
    pattern::compile(expression).map_err(|_| {
        QueryError::execution(format!("invalid regular expression in label_replace(): {expression}"))
    })
}

fn too_long(function: &str) -> QueryError {
    let message = format!("{function}() would make a label value of more than {VALUE_BYTES_MAX} bytes");
    QueryError::execution(message)
}

/// Any UTF-8 text is a label's name, but not none. Escaped bytes that are no UTF-8 arrive as replacement characters.
fn check(which: &str, name: &str, function: &str) -> Result<(), QueryError> {
    if name.is_empty() || name.contains(char::REPLACEMENT_CHARACTER) {
        return Err(QueryError::execution(format!("invalid {which} label name in {function}(): {name}")));
    }
    Ok(())
}

/// Fills `$1`, `$name`, `${name}` and `$$` in; what is none of these stays. Nothing, if that is too long.
fn expand(template: &str, pattern: &Pattern, captures: &Captures<'_>) -> Option<String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = reference(after) {
            out.push_str(pattern.group(captures, name));
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
        if out.len() > VALUE_BYTES_MAX {
            return None;
        }
    }
    out.push_str(rest);
    (out.len() <= VALUE_BYTES_MAX).then_some(out)
}

/// The name after a dollar sign, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    if let Some(braced) = text.strip_prefix('{') {
        let (name, after) = braced.split_once('}')?;
        return (!name.is_empty() && name.chars().all(is_name)).then_some((name, after));
    }
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    (!name.is_empty()).then_some((name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_filled_in() {
        let regex = compile("(.*)-(?P<last>.*)").unwrap();
        let captures = regex.captures("a-b").unwrap();
        for (template, expected) in
            [("$1", "a"), ("${1}x", "ax"), ("$1x", ""), ("$last$$", "b$"), ("${last", "${last"), ("$7-", "-")]
        {
            assert_eq!(expand(template, &regex, &captures).as_deref(), Some(expected), "{template}");
        }
        assert_eq!(expand(&"$1".repeat(VALUE_BYTES_MAX + 1), &regex, &captures), None);
    }
}
