//! Reader of BTF, the kernel's own description of its types: a field's offset by path, a tracepoint's arguments.
//!
//! Reads the running kernel's file at start, and stored files in tests; every bound is checked, so that a damaged
//! file gives an error and nothing else.

use std::path::{Path, PathBuf};

const MAGIC: u16 = 0xeb9f;
const HEADER_BYTES: usize = 24;
const TYPE_BYTES: usize = 12;
/// Nesting of anonymous structs and unions, modifiers and arrays that is followed.
const DEPTH_MAX: u32 = 32;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Why a BTF file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not BTF, or of a form that this reader does not know.
    #[error("parse BTF: {0}")]
    Form(&'static str),
}

/// A parsed BTF file.
pub struct Btf {
    data: Vec<u8>,
    /// Offset of each type by its id; id 0 is `void` and has none.
    types: Vec<u32>,
    strings: usize,
}

// === impl Btf ===

impl Btf {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not BTF.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let data = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(data)
    }

    /// Indexes the types.
    ///
    /// # Errors
    ///
    /// If the bytes are not BTF of this machine's byte order, or cut short.
    pub fn parse(data: Vec<u8>) -> Result<Self, Error> {
        if data.is_empty() {
            return Err(Error::Form("the file is empty"));
        }
        let header = |at: usize| word(&data, at).ok_or(Error::Form("cut short in the header"));
        if header(0)? & 0xffff != u32::from(MAGIC) {
            return Err(Error::Form("no magic number"));
        }
        let after = usize_of(header(4)?);
        if after < HEADER_BYTES {
            return Err(Error::Form("header too short"));
        }
        let start = after.saturating_add(usize_of(header(8)?));
        let end = start.saturating_add(usize_of(header(12)?));
        let strings = after.saturating_add(usize_of(header(16)?));
        if end > data.len() || strings > data.len() {
            return Err(Error::Form("sections beyond the end"));
        }
        let mut types = vec![0];
        let mut at = start;
        while at < end {
            let info = word(&data, at.saturating_add(4)).ok_or(Error::Form("cut short in a type"))?;
            types.push(u32::try_from(at).map_err(|_| Error::Form("larger than 4 GiB"))?);
            at = at
                .saturating_add(TYPE_BYTES)
                .saturating_add(trailer(info).ok_or(Error::Form("unknown kind"))?);
        }
        Ok(Self { data, types, strings })
    }

    /// Byte offset of a field, by a path such as `task_struct.sched_info.run_delay`; does not cross pointers.
    #[must_use]
    pub fn offset(&self, path: &str) -> Option<u32> {
        let mut names = path.split('.');
        let mut id = self.find(names.next()?, &[KIND_STRUCT, KIND_UNION])?;
        let mut bits = 0_u32;
        for name in names {
            let (next, offset) = self.member(id, name, 0)?;
            bits = bits.checked_add(offset)?;
            id = next;
        }
        Some(bits / 8)
    }

    /// Types of a tracepoint's arguments, without the leading `void *`, as C would write them.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<Vec<String>> {
        let alias = self.find(&format!("btf_trace_{name}"), &[KIND_TYPEDEF])?;
        let proto = self.target(self.target(alias)?)?;
        if self.kind(proto)? != KIND_FUNC_PROTO {
            return None;
        }
        let at = self.at(proto)? + TYPE_BYTES;
        (1..self.vlen(proto)?).map(|i| Some(self.c_name(word(&self.data, at + 8 * i + 4)?, 0))).collect()
    }

    /// How many types there are.
    #[must_use]
    pub fn type_count(&self) -> usize {
        self.types.len()
    }

    fn find(&self, name: &str, kinds: &[u32]) -> Option<u32> {
        (1..u32::try_from(self.types.len()).ok()?)
            .find(|&id| self.kind(id).is_some_and(|kind| kinds.contains(&kind)) && self.name(id) == name)
    }

    /// A member by name, looked for through anonymous structs and unions: its type and its offset in bits.
    fn member(&self, id: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        if depth > DEPTH_MAX {
            return None;
        }
        let id = self.plain(id)?;
        if !matches!(self.kind(id)?, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        let with_bitfields = self.info(id)? >> 31 == 1;
        let start = self.at(id)? + TYPE_BYTES;
        for i in 0..self.vlen(id)? {
            let at = start + 12 * i;
            let own = self.string(word(&self.data, at)?);
            let kind = word(&self.data, at + 4)?;
            let raw = word(&self.data, at + 8)?;
            let bits = if with_bitfields { raw & 0x00ff_ffff } else { raw };
            if own == name {
                return Some((kind, bits));
            }
            if own.is_empty()
                && let Some((found, inner)) = self.member(kind, name, depth + 1)
            {
                return Some((found, bits.checked_add(inner)?));
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    fn plain(&self, mut id: u32) -> Option<u32> {
        for _ in 0..DEPTH_MAX {
            match self.kind(id)? {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = self.target(id)?
                }
                _ => return Some(id),
            }
        }
        None
    }

    fn c_name(&self, id: u32, depth: u32) -> String {
        let inner = |this: &Self| this.target(id).map_or_else(String::new, |to| this.c_name(to, depth + 1));
        match (id, self.kind(id)) {
            (0, _) => "void".to_owned(),
            (_, None) => String::new(),
            _ if depth > DEPTH_MAX => String::new(),
            (_, Some(KIND_PTR)) => format!("{} *", inner(self)),
            (_, Some(KIND_CONST)) => format!("const {}", inner(self)),
            (_, Some(KIND_VOLATILE | KIND_RESTRICT | KIND_TYPE_TAG)) => inner(self),
            (_, Some(KIND_STRUCT)) => format!("struct {}", self.name(id)),
            (_, Some(KIND_ENUM)) => format!("enum {}", self.name(id)),
            _ => self.name(id).to_owned(),
        }
    }

    fn at(&self, id: u32) -> Option<usize> {
        self.types.get(usize_of(id)).filter(|_| id != 0).map(|&at| usize_of(at))
    }

    fn info(&self, id: u32) -> Option<u32> {
        word(&self.data, self.at(id)? + 4)
    }

    fn kind(&self, id: u32) -> Option<u32> {
        self.info(id).map(|info| info >> 24 & 0x1f)
    }

    fn vlen(&self, id: u32) -> Option<usize> {
        self.info(id).map(|info| usize_of(info & 0xffff))
    }

    fn target(&self, id: u32) -> Option<u32> {
        word(&self.data, self.at(id)? + 8)
    }

    fn name(&self, id: u32) -> &str {
        self.at(id).and_then(|at| word(&self.data, at)).map_or("", |offset| self.string(offset))
    }

    fn string(&self, offset: u32) -> &str {
        let bytes = self.data.get(self.strings.saturating_add(usize_of(offset))..).unwrap_or_default();
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

fn usize_of(word: u32) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// Bytes that follow a type, by its kind and count.
fn trailer(info: u32) -> Option<usize> {
    let count = usize_of(info & 0xffff);
    match info >> 24 & 0x1f {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => Some(4),
        KIND_ARRAY => Some(12),
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => Some(12 * count),
        KIND_ENUM | KIND_FUNC_PROTO => Some(8 * count),
        // Pointer, forward, typedef, qualifiers, function, float, type tag.
        KIND_PTR | 7..=12 | 16 | KIND_TYPE_TAG => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file with `struct outer { int a; struct { int b; }; }` and `typedef outer alias`.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0outer\0a\0b\0alias\0";
        let kind = |kind: u32, count: u32| kind << 24 | count;
        let types: Vec<u32> = [
            vec![1, kind(KIND_INT, 0), 4, 32],
            vec![0, kind(KIND_STRUCT, 1), 4, 13, 1, 0],
            vec![5, kind(KIND_STRUCT, 2), 8, 11, 1, 0, 0, 2, 32],
            vec![15, kind(KIND_TYPEDEF, 0), 3],
        ]
        .concat();
        let type_bytes: Vec<u8> = types.iter().flat_map(|word| word.to_le_bytes()).collect();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let (types_len, strings_len) = (length(&type_bytes), length(strings));
        let header = [0x0001_eb9f, 24, 0, types_len, types_len, strings_len];
        let mut file: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        file.extend(type_bytes);
        file.extend(strings);
        file
    }

    #[test]
    fn fields_are_found_through_anonymous_structs() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.offset("outer.a"), Some(0));
        assert_eq!(btf.offset("outer.b"), Some(4));
        assert_eq!(btf.offset("outer.c"), None);
        assert_eq!(btf.offset("nothing.a"), None);
        assert_eq!(btf.tracepoint("sched_switch"), None);
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_or_read_without_a_panic() {
        let whole = sample();
        for length in 0..whole.len() {
            if let Ok(btf) = Btf::parse(whole[..length].to_vec()) {
                let _ = btf.offset("outer.b");
            }
        }
        assert!(matches!(Btf::parse(vec![0; 64]), Err(Error::Form("no magic number"))));
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(at in 0_usize..150, byte in any::<u8>()) {
            let mut file = sample();
            let at = at % file.len();
            file[at] = byte;
            if let Ok(btf) = Btf::parse(file) {
                let _ = (btf.offset("outer.b"), btf.tracepoint("alias"));
            }
        }
    }
}
