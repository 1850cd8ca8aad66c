//! The command line where people meet it: `top` on a terminal, and beside a real agent; completions in a shell; manual
//! pages.

mod fixture;
mod shell;
mod top;
