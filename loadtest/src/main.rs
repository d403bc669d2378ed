//! The load tester; everything is in the library, so that benches can use it.

fn main() -> std::process::ExitCode {
    starling_loadtest::cli::main()
}
