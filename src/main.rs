//! The `gannet` program: see the library's [`cli`](gannet::cli).

fn main() {}
