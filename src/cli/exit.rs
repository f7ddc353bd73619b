//! The end of the program before it has begun: wrong usage.

/// Wrong usage: one line, exit code 2. The line says what would be right, so
/// no list of options follows.
pub(crate) fn usage(sentence: &str) -> ! {
    eprintln!("error: {sentence}");
    std::process::exit(EXIT_USAGE)
}

/// Exit code of wrong usage, as clap has it.
const EXIT_USAGE: i32 = 2;
