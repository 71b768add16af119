#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gannet::oracles::ip_filter::run(data));
