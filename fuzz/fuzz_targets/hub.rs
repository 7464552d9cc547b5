//! The name of a model of the hub: what is accepted names no path outside of the cache.
#![no_main]

use bitnet_model::hub::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(reference) = Reference::parse(text) {
        let repository = reference.repository();
        assert_eq!(repository.split('/').count(), 2, "{repository}");
        assert!(!repository.contains("..") && !repository.contains('\\'), "{repository}");
    }
});
