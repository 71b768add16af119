use super::Global;
use super::args::ScrapeArgs;
use super::exit::Failure;
pub(super) fn run(_: ScrapeArgs, _: &Global) -> Result<(), Failure> {
    Ok(())
}
