//! Kinds of tokens, and how errors speak of them.

use crate::ast::{Aggregator, BinaryOp, Span};
use crate::quote::quoted;

/// A token: what it is and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Where it stands.
    pub span: Span,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// The text ends. Of length 0.
    Eof,
    /// The text is no token here; [`super::Lexer::error`] says why.
    Error,
    /// `# to the end of the line`
    Comment,
    /// A name without a colon that is no keyword.
    Identifier,
    /// A name with a colon.
    MetricIdentifier,
    /// A number, also `Inf` and `NaN`.
    Number,
    /// `1h30m`
    Duration,
    /// Text in quotes, well formed.
    String,
    /// `(`
    LeftParen,
    /// `)`
    RightParen,
    /// `{`
    LeftBrace,
    /// `}`
    RightBrace,
    /// `[`
    LeftBracket,
    /// `]`
    RightBracket,
    /// `,`
    Comma,
    /// `:` within brackets
    Colon,
    /// `=`
    Assign,
    /// `=~`
    EqualRegex,
    /// `!~`
    NotEqualRegex,
    /// `@`
    At,
    /// A binary operator; `+` and `-` are signs, too, and `!=` is a matcher's operator in braces.
    Op(BinaryOp),
    /// An aggregator's name.
    Aggregator(Aggregator),
    /// Another keyword.
    Keyword(Keyword),
}

/// Keywords that are neither operators nor aggregators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the word it is named after")]
pub enum Keyword {
    Offset,
    Smoothed,
    Anchored,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Bool,
    Start,
    End,
    Step,
    Range,
    MaxOf,
    MinOf,
}

/// The longest keyword: `count_values`, `max_of` and the like are shorter.
const KEYWORD_BYTES: usize = 12;

/// The kind of a word, if it is a keyword, in any case.
pub(super) fn keyword(word: &str) -> Option<TokenKind> {
    let mut lower = [0; KEYWORD_BYTES];
    let lower = lower.get_mut(..word.len())?;
    lower.copy_from_slice(word.as_bytes());
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"and" => TokenKind::Op(BinaryOp::And),
        b"or" => TokenKind::Op(BinaryOp::Or),
        b"unless" => TokenKind::Op(BinaryOp::Unless),
        b"atan2" => TokenKind::Op(BinaryOp::Atan2),
        b"inf" | b"nan" => TokenKind::Number,
        lower => {
            return aggregator(lower)
                .map(TokenKind::Aggregator)
                .or_else(|| plain(lower).map(TokenKind::Keyword));
        }
    })
}

/// The aggregator of that name.
fn aggregator(lower: &[u8]) -> Option<Aggregator> {
    Some(match lower {
        b"sum" => Aggregator::Sum,
        b"avg" => Aggregator::Avg,
        b"count" => Aggregator::Count,
        b"min" => Aggregator::Min,
        b"max" => Aggregator::Max,
        b"group" => Aggregator::Group,
        b"stddev" => Aggregator::Stddev,
        b"stdvar" => Aggregator::Stdvar,
        b"topk" => Aggregator::TopK,
        b"bottomk" => Aggregator::BottomK,
        b"count_values" => Aggregator::CountValues,
        b"quantile" => Aggregator::Quantile,
        b"limitk" => Aggregator::LimitK,
        b"limit_ratio" => Aggregator::LimitRatio,
        _ => return None,
    })
}

/// The other keyword of that name.
fn plain(lower: &[u8]) -> Option<Keyword> {
    Some(match lower {
        b"offset" => Keyword::Offset,
        b"smoothed" => Keyword::Smoothed,
        b"anchored" => Keyword::Anchored,
        b"by" => Keyword::By,
        b"without" => Keyword::Without,
        b"on" => Keyword::On,
        b"ignoring" => Keyword::Ignoring,
        b"group_left" => Keyword::GroupLeft,
        b"group_right" => Keyword::GroupRight,
        b"fill" => Keyword::Fill,
        b"fill_left" => Keyword::FillLeft,
        b"fill_right" => Keyword::FillRight,
        b"bool" => Keyword::Bool,
        b"start" => Keyword::Start,
        b"end" => Keyword::End,
        b"step" => Keyword::Step,
        b"range" => Keyword::Range,
        b"max_of" => Keyword::MaxOf,
        b"min_of" => Keyword::MinOf,
        _ => return None,
    })
}

// === impl TokenKind ===

impl TokenKind {
    /// The token with its text, as Prometheus' errors name it: `identifier "foo"`, `<op:+>`, `end of input`.
    #[must_use]
    pub fn describe(self, text: &str) -> String {
        let kind = match self {
            Self::Eof => return "end of input".to_owned(),
            Self::Error => return "error".to_owned(),
            Self::Identifier => return format!("identifier {}", quoted(text)),
            Self::MetricIdentifier => return format!("metric identifier {}", quoted(text)),
            Self::Op(_) | Self::EqualRegex | Self::NotEqualRegex | Self::At => return format!("<op:{text}>"),
            Self::Aggregator(_) => return format!("<aggr:{text}>"),
            Self::Keyword(keyword) if keyword.is_modifier() => return format!("<{text}>"),
            Self::Comment => "comment ",
            Self::Number => "number ",
            Self::Duration => "duration ",
            Self::String => "string ",
            _ => "",
        };
        if text.len() > 10 {
            let start: String = text.chars().take(10).collect();
            return format!("{kind}{}...", quoted(&start));
        }
        format!("{kind}{}", quoted(text))
    }
}

// === impl Keyword ===

impl Keyword {
    /// Whether it only modifies and is no function as well.
    fn is_modifier(self) -> bool {
        !matches!(self, Self::Start | Self::End | Self::Step | Self::Range | Self::MaxOf | Self::MinOf)
    }
}
