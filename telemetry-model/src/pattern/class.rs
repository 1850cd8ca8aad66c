//! Classes of characters: in brackets, of one letter, of Unicode's names.

use super::{PatternError, escape};

/// The names that may stand in `[:…:]`.
const NAMES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// What matches nothing.
pub(super) const NOTHING: &str = "[^\\x{0}-\\x{10ffff}]";

/// General categories by all their names, lower case, and without what joins words.
const CATEGORIES: &str = " c cc cf cn co cs l lc ll lm lo lt lu m mc me mn n nd nl no p pc pd pe pf pi po ps s sc sk sm so z \
    zl zp zs casedletter closepunctuation combiningmark connectorpunctuation control currencysymbol dashpunctuation \
    decimalnumber enclosingmark finalpunctuation format initialpunctuation letter letternumber lineseparator \
    lowercaseletter mark mathsymbol modifierletter modifiersymbol nonspacingmark number openpunctuation other otherletter \
    othernumber otherpunctuation othersymbol paragraphseparator privateuse punctuation separator spaceseparator spacingmark \
    surrogate symbol titlecaseletter unassigned uppercaseletter cntrl digit punct ";

/// Scripts with names so short that they could be abbreviations, which only the crate knows.
const SHORT_SCRIPTS: &str = " ahom cham han kawi lao lisu miao modi mro newa nko thai toto vai yi ";

/// The first and the last half of a surrogate pair.
const SURROGATES: (u32, u32) = (0xd800, 0xdfff);

/// Translates a class in brackets, the first of which comes first; gives it and what follows.
pub(super) fn translate(whole: &str) -> Result<(String, &str), PatternError> {
    let mut rest = whole.get(1..).unwrap_or_default();
    let mut out = String::from("[");
    if let Some(negated) = rest.strip_prefix('^') {
        out.push('^');
        rest = negated;
    }
    let (empty, mut first) = (out.len(), true);
    while first || !rest.starts_with(']') {
        first = false;
        if let Some((named, after)) = named(rest)? {
            out.push_str(&named);
            rest = after;
        } else if let Some((class, after)) = shorthand(rest)? {
            out.push_str(&class);
            rest = after;
        } else {
            rest = range(&mut out, rest, whole)?;
        }
    }
    if out.len() == empty {
        // Only halves of surrogate pairs, which no text has: nothing, or with a `^` everything.
        out.push_str(NOTHING);
    }
    out.push(']');
    Ok((out, rest.get(1..).unwrap_or_default()))
}

/// Translates one character or a range; gives what follows.
fn range<'a>(out: &mut String, text: &'a str, whole: &str) -> Result<&'a str, PatternError> {
    let (low, mut rest) = character(text, whole)?;
    let mut high = low;
    if rest.len() >= 2 && rest.starts_with('-') && !rest.starts_with("-]") {
        (high, rest) = character(rest.get(1..).unwrap_or_default(), whole)?;
        if high < low {
            let read = text.get(..text.len() - rest.len()).unwrap_or(text);
            return Err(PatternError::new("invalid character class range", read));
        }
    }
    let inside = |code: u32| (SURROGATES.0..=SURROGATES.1).contains(&code);
    let low = if inside(low) { SURROGATES.1 + 1 } else { low };
    let high = if inside(high) { SURROGATES.0 - 1 } else { high };
    if let (Some(low), Some(high)) = (char::from_u32(low), char::from_u32(high))
        && low <= high
    {
        escape::push_class_char(out, low);
        if low != high {
            out.push('-');
            escape::push_class_char(out, high);
        }
    }
    Ok(rest)
}

/// Reads one character of a class.
fn character<'a>(text: &'a str, whole: &str) -> Result<(u32, &'a str), PatternError> {
    let Some(first) = text.chars().next() else {
        return Err(PatternError::new("missing closing ]", whole));
    };
    if first == '\\' {
        return escape::read(text);
    }
    Ok((u32::from(first), text.get(first.len_utf8()..).unwrap_or_default()))
}

/// `[:alpha:]`, `[:^alpha:]`: the same in both languages.
fn named(text: &str) -> Result<Option<(String, &str)>, PatternError> {
    let Some((name, rest)) = text.strip_prefix("[:").and_then(|inner| inner.split_once(":]")) else {
        return Ok(None);
    };
    let written = text.get(..text.len() - rest.len()).unwrap_or(text);
    if !NAMES.contains(&name.strip_prefix('^').unwrap_or(name)) {
        return Err(PatternError::new("invalid character class range", written));
    }
    Ok(Some((written.to_owned(), rest)))
}

/// `\d`, `\W`, `\pN`, `\p{Greek}` and their like: ASCII where RE2 has ASCII.
pub(super) fn shorthand(text: &str) -> Result<Option<(String, &str)>, PatternError> {
    let Some(second) = text.strip_prefix('\\').and_then(|escaped| escaped.chars().next()) else {
        return Ok(None);
    };
    let class = match second {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        's' => "[\\t\\n\\x0C\\r ]",
        'S' => "[^\\t\\n\\x0C\\r ]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        'p' | 'P' => return unicode(text, second == 'P').map(Some),
        _ => return Ok(None),
    };
    Ok(Some((class.to_owned(), text.get(2..).unwrap_or_default())))
}

/// A class by one of Unicode's names, of one letter or in braces, with `^` for its complement.
fn unicode(text: &str, negated: bool) -> Result<(String, &str), PatternError> {
    const REASON: &str = "invalid character class range";
    let after = text.get(2..).unwrap_or_default();
    let (name, rest) = match after.strip_prefix('{') {
        Some(inner) => inner.split_once('}').ok_or_else(|| PatternError::new(REASON, text))?,
        None => after.split_at(after.chars().next().map_or(0, char::len_utf8)),
    };
    let written = text.get(..text.len() - rest.len()).unwrap_or(text);
    let (negated, name) = match name.strip_prefix('^') {
        Some(name) => (!negated, name),
        None => (negated, name),
    };
    let class = property(name, negated).ok_or_else(|| PatternError::new(REASON, written))?;
    Ok((class, rest))
}

/// A general category or a script. The crate's other properties and other names are none to RE2.
fn property(name: &str, negated: bool) -> Option<String> {
    let written = name;
    let letters = written.chars().filter(|character| !matches!(character, '_' | '-' | ' '));
    let name = letters.collect::<String>().to_ascii_lowercase();
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    let is_in = |list: &str| list.contains(&format!(" {name} "));
    let kind = match name.as_str() {
        "any" | "assigned" | "ascii" => "",
        "cs" | "surrogate" => return Some(if negated { "\\x{0}-\\x{10ffff}" } else { NOTHING }.to_owned()),
        _ if is_in(CATEGORIES) => "gc=",
        _ if name.len() > 4 || is_in(SHORT_SCRIPTS) => "sc=",
        _ => return None,
    };
    Some(format!("\\{}{{{kind}{written}}}", if negated { 'P' } else { 'p' }))
}
