//! The configurations of runs in the tree can be read.

use bitnet_training::Config;
use bitnet_training::data::expand;
use std::path::Path;

#[test]
fn the_configurations_in_the_tree_are_some() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    for name in ["shakespeare-char.toml", "shakespeare-dense.toml", "shakespeare.toml", "tree.toml"] {
        let config = Config::load(folder.join(name)).unwrap();
        // Nothing outside the clone.
        let paths = config.data.train.iter().chain(&config.data.validation).chain(&config.tokenizer.path);
        paths.for_each(|path| assert!(path.is_relative() && !path.starts_with(".."), "{name}: {path:?}"));
    }
}

/// Each file of `configs/tree.toml` is in the clone, and its widths suit every form of an export.
#[test]
fn the_first_run_of_the_readme_needs_nothing_but_the_clone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let config = Config::load(root.join("configs/tree.toml")).unwrap();
    for entry in &config.data.train {
        assert!(!expand(&root.join(entry)).unwrap().is_empty());
    }
    let widths = [config.model.hidden_size, config.model.intermediate_size];
    assert!(widths.iter().all(|width| width.is_multiple_of(256)), "{widths:?}");
}
