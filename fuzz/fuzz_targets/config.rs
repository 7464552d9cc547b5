//! `config.json`: an accepted configuration must be consistent enough to compute sizes.
#![no_main]

use bitnet_model::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Config::from_json(text) {
        Ok(config) => {
            config.validate().expect("what is accepted is valid");
            let _ = (config.query_size(), config.kv_size(), config.block_parameters());
        }
        Err(e) => assert!(!e.to_string().contains('\n')),
    }
});
