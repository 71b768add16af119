#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gannet::oracles::reach::run(data));
