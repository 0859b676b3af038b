#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ipcr_core::fuzzing::txt_records(bytes));
