//! The text format.

use std::io::Write as _;

use telemetry_promql::labels::Labels;

use super::{Last, Value, is_plain, labels_of, name_of};
use crate::expose;

/// Series of one name; native histograms have no place in text.
pub(super) fn family(out: &mut Vec<u8>, series: &[(&(String, Labels), &Last)], quoted: bool) {
    let mut has_head = false;
    for ((name, labels), last) in series {
        let Value::Float(value) = last.value else { continue };
        let name = name_of(name, quoted);
        let is_inside = !is_plain(&name);
        if !has_head {
            has_head = true;
            out.extend_from_slice(b"# TYPE ");
            if is_inside {
                quote(out, &name)
            } else {
                out.extend_from_slice(name.as_bytes())
            }
            out.extend_from_slice(b" untyped\n");
        }
        if !is_inside {
            out.extend_from_slice(name.as_bytes());
        }
        let mut separator = b'{';
        if is_inside {
            out.push(separator);
            separator = b',';
            quote(out, &name);
        }
        for (label, value) in labels_of(labels) {
            out.push(separator);
            separator = b',';
            let label = name_of(label, quoted);
            if is_plain(&label) {
                out.extend_from_slice(label.as_bytes())
            } else {
                quote(out, &label)
            }
            out.push(b'=');
            quote(out, value);
        }
        out.extend_from_slice(b"} ");
        expose::push_number(value, out);
        // Writing to a Vec cannot fail.
        let _ = writeln!(out, " {}", last.t);
    }
}

/// Text between quotation marks.
fn quote(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            byte => out.push(byte),
        }
    }
    out.push(b'"');
}
