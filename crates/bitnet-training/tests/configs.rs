//! The configurations of runs in the tree can be read.

use bitnet_training::Config;
use std::path::Path;

#[test]
fn the_configurations_in_the_tree_are_some() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    for name in ["shakespeare-char.toml", "shakespeare.toml"] {
        let config = Config::load(folder.join(name)).unwrap();
        assert!(config.data.train.iter().all(|path| path.is_relative()), "{name}");
    }
}
