//! One line: a sample, a word about a family, the end.

use std::borrow::Cow;

use super::{
    Dialect, EXEMPLAR_CHARS_MAX, Exemplar, Kind, LABELS_MAX, LINE_BYTES_MAX, Line, Pair, Sample, SyntaxError,
    Time,
};

/// Reads one line, without its end.
///
/// # Errors
/// If it is not of the format.
pub fn parse_line(line: &str, dialect: Dialect) -> Result<Line<'_>, SyntaxError> {
    if line.len() > LINE_BYTES_MAX {
        return Err(SyntaxError("line too long"));
    }
    let is_text = dialect == Dialect::Text;
    let line = if is_text { line.trim_matches([' ', '\t', '\r']) } else { line };
    if line.is_empty() {
        return if is_text { Ok(Line::Nothing) } else { Err(SyntaxError("empty line")) };
    }
    match line.strip_prefix('#') {
        Some(comment) if is_text => text_comment(comment),
        Some(comment) => comment_of(comment),
        None => sample(line, dialect).map(Line::Sample),
    }
}

/// A comment of OpenMetrics: three words and a text, one blank between them.
fn comment_of(comment: &str) -> Result<Line<'_>, SyntaxError> {
    if comment == " EOF" {
        return Ok(Line::Eof);
    }
    let word = comment.get(1..5).filter(|_| comment.starts_with(' ')).unwrap_or("");
    if !matches!(word, "TYPE" | "UNIT" | "HELP") {
        return Err(SyntaxError("neither TYPE, UNIT, HELP nor EOF"));
    }
    let mut cursor = Cursor { rest: comment.get(5..).unwrap_or(""), is_text: false };
    cursor.blank()?;
    let family = cursor.family()?;
    cursor.blank()?;
    let text = cursor.rest;
    Ok(match word {
        "TYPE" => {
            Line::Type(family, Kind::of(text, Dialect::OpenMetrics).ok_or(SyntaxError("unknown type"))?)
        }
        "UNIT" if text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':')) => {
            Line::Unit(family, text)
        }
        "UNIT" => return Err(SyntaxError("not a unit")),
        _ => Line::Help(family, unescape(text, true)),
    })
}

/// A comment of text 0.0.4: what is neither TYPE nor HELP is for people.
fn text_comment(comment: &str) -> Result<Line<'_>, SyntaxError> {
    let mut cursor = Cursor { rest: comment.trim_start_matches([' ', '\t']), is_text: true };
    let word = cursor.rest.split([' ', '\t']).next().unwrap_or("");
    if !matches!(word, "TYPE" | "HELP") {
        return Ok(Line::Nothing);
    }
    cursor.rest = cursor.rest.get(4..).unwrap_or("");
    cursor.space();
    let family = cursor.family()?;
    cursor.space();
    if word == "HELP" {
        return Ok(Line::Help(family, unescape(cursor.rest, false)));
    }
    Ok(Line::Type(family, Kind::of(cursor.rest, Dialect::Text).ok_or(SyntaxError("unknown type"))?))
}

fn sample(line: &str, dialect: Dialect) -> Result<Sample<'_>, SyntaxError> {
    let mut cursor = Cursor { rest: line, is_text: dialect == Dialect::Text };
    let mut labels = Vec::new();
    if !cursor.rest.starts_with('{') {
        let name = cursor.name(true)?;
        labels.push((Cow::Borrowed("__name__"), Cow::Borrowed(name)));
        cursor.space();
    }
    if cursor.rest.starts_with('{') {
        cursor.labels(&mut labels, true)?;
    }
    sort(&mut labels)?;
    if !labels.iter().any(|(name, value)| name == "__name__" && !value.is_empty()) {
        return Err(SyntaxError("sample without a name"));
    }
    cursor.blank()?;
    let value = number(cursor.word()?)?;
    let mut sample = Sample { labels, value, t: None, exemplar: None };
    if !cursor.rest.is_empty() && !cursor.rest.starts_with(" #") {
        cursor.blank()?;
        sample.t = Some(time(cursor.word()?, dialect)?);
    }
    if let Some(rest) = cursor.rest.strip_prefix(" # ").filter(|_| !cursor.is_text) {
        cursor.rest = rest;
        sample.exemplar = Some(cursor.exemplar()?);
    }
    if cursor.rest.is_empty() { Ok(sample) } else { Err(SyntaxError("text after the sample")) }
}

/// A number as both formats write it.
pub fn number(word: &str) -> Result<f64, SyntaxError> {
    let bad = SyntaxError("not a number");
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    if unsigned.starts_with(|c: char| c.is_ascii_alphabetic()) {
        let infinity = if word.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY };
        return match unsigned.to_ascii_lowercase().as_str() {
            "inf" | "infinity" => Ok(infinity),
            "nan" if unsigned == word => Ok(f64::NAN),
            _ => Err(bad),
        };
    }
    let is_number = word.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
    if is_number { word.parse().map_err(|_| bad) } else { Err(bad) }
}

/// A timestamp, exact whatever a float would make of it.
fn time(word: &str, dialect: Dialect) -> Result<Time, SyntaxError> {
    let bad = SyntaxError("not a timestamp");
    if dialect == Dialect::Text {
        return word.parse::<i64>().map(|t| Time(i128::from(t) * 1_000_000)).map_err(|_| bad);
    }
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    let (whole, part) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let is_plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if is_plain(whole) && is_plain(part) && !whole.is_empty() {
        let seconds = whole.parse::<i128>().map_err(|_| bad.clone())?;
        let nanos: String = part.chars().chain("000000000".chars()).take(9).collect();
        let nanos = nanos.parse::<i128>().map_err(|_| bad)?;
        let size = seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        return Ok(Time(if word.starts_with('-') { -size } else { size }));
    }
    let seconds = number(word)?;
    if !seconds.is_finite() {
        return Err(bad);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what is beyond saturates, and is no time of a store"
    )]
    let nanos = (seconds * 1e9).round() as i128;
    Ok(Time(nanos))
}

fn sort(labels: &mut [Pair<'_>]) -> Result<(), SyntaxError> {
    labels.sort_by(|a, b| a.0.cmp(&b.0));
    let twice = labels.iter().zip(labels.iter().skip(1)).any(|(a, b)| a.0 == b.0);
    if twice { Err(SyntaxError("label given twice")) } else { Ok(()) }
}

fn unescape(text: &str, quotes: bool) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('\\') => out.push('\\'),
            Some('"') if quotes => out.push('"'),
            // Not an escape: the backslash is itself.
            other => {
                out.push('\\');
                out.extend(other);
            }
        }
    }
    Cow::Owned(out)
}

struct Cursor<'a> {
    rest: &'a str,
    is_text: bool,
}

// === impl Cursor ===

impl<'a> Cursor<'a> {
    /// Any white space in text 0.0.4; none in OpenMetrics.
    fn space(&mut self) {
        if self.is_text {
            self.rest = self.rest.trim_start_matches([' ', '\t']);
        }
    }

    /// One blank; any white space in text 0.0.4, where braces need none before them.
    fn blank(&mut self) -> Result<(), SyntaxError> {
        if self.is_text {
            self.space();
            return Ok(());
        }
        self.rest = self.rest.strip_prefix(' ').ok_or(SyntaxError("one blank expected"))?;
        Ok(())
    }

    fn name(&mut self, colons: bool) -> Result<&'a str, SyntaxError> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
        let end = self.rest.find(|c: char| !is_part(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(SyntaxError("not a name"));
        }
        self.rest = rest;
        Ok(name)
    }

    fn family(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        if self.rest.starts_with('"') { self.quoted() } else { self.name(true).map(Cow::Borrowed) }
    }

    fn word(&mut self) -> Result<&'a str, SyntaxError> {
        let end = self.rest.find([' ', '\t']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.space();
        if word.is_empty() { Err(SyntaxError("value missing")) } else { Ok(word) }
    }

    fn quoted(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        let rest = self.rest.strip_prefix('"').ok_or(SyntaxError("quote missing"))?;
        let mut escaped = false;
        let end = rest.bytes().position(|b| {
            let ends = b == b'"' && !escaped;
            escaped = b == b'\\' && !escaped;
            ends
        });
        let (text, after) = rest.split_at(end.ok_or(SyntaxError("quote not closed"))?);
        self.rest = after.strip_prefix('"').unwrap_or("");
        Ok(unescape(text, true))
    }

    /// `{a="b",c="d"}`; where a metric's name may be, a quoted string alone is it.
    fn labels(&mut self, out: &mut Vec<Pair<'a>>, names: bool) -> Result<(), SyntaxError> {
        self.rest = self.rest.strip_prefix('{').ok_or(SyntaxError("brace missing"))?;
        self.space();
        let mut is_first = true;
        loop {
            if let Some(rest) = self.rest.strip_prefix('}').filter(|_| is_first || self.is_text) {
                self.rest = rest;
                return Ok(());
            }
            is_first = false;
            if out.len() > LABELS_MAX {
                return Err(SyntaxError("too many labels"));
            }
            let is_quoted = self.rest.starts_with('"');
            let name = if is_quoted { self.quoted()? } else { Cow::Borrowed(self.name(false)?) };
            self.space();
            if let Some(rest) = self.rest.strip_prefix('=') {
                self.rest = rest;
                self.space();
                let value = self.quoted()?;
                if name.is_empty() {
                    return Err(SyntaxError("label without a name"));
                }
                out.push((name, value));
            } else if is_quoted && names {
                out.push((Cow::Borrowed("__name__"), name));
            } else {
                return Err(SyntaxError("equals sign missing"));
            }
            self.space();
            if let Some(rest) = self.rest.strip_prefix('}') {
                self.rest = rest;
                return Ok(());
            }
            self.rest = self.rest.strip_prefix(',').ok_or(SyntaxError("comma missing"))?;
            self.space();
        }
    }

    /// What follows a sample's ` # `.
    fn exemplar(&mut self) -> Result<Exemplar<'a>, SyntaxError> {
        let mut labels = Vec::new();
        self.labels(&mut labels, false)?;
        sort(&mut labels)?;
        let chars: usize = labels.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
        if chars > EXEMPLAR_CHARS_MAX {
            return Err(SyntaxError("labels of an exemplar have more than 128 characters"));
        }
        self.blank()?;
        let value = number(self.word()?)?;
        let mut t = None;
        if !self.rest.is_empty() {
            self.blank()?;
            t = Some(time(self.word()?, Dialect::OpenMetrics)?);
        }
        Ok(Exemplar { labels, value, t })
    }
}
