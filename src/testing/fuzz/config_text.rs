//! Any text as a configuration file, and as the durations and sizes in it.

use crate::config::{MeshConfig, format_duration, parse_duration};

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match MeshConfig::from_toml(text) {
        Ok(config) => {
            assert!(config.validate().is_ok(), "what is loaded is checked");
            match MeshConfig::from_toml(&config.to_toml()) {
                Ok(again) => assert!(again == config, "{:?} is read back as another", config.to_toml()),
                Err(error) => panic!("what was written is not read: {error}"),
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(duration) = parse_duration(text) {
        assert!(parse_duration(&format_duration(duration)).is_ok_and(|again| again == duration));
    }
}
