use super::Global;
use super::args::DemoArgs;
use super::exit::Failure;
pub(super) fn run(_: &DemoArgs, _: &Global) -> Result<(), Failure> {
    Ok(())
}
