//! What every command knows: where the node's state is, its configuration, how to print.

use std::path::{Path, PathBuf};

use clap::Args;
use quicprochat_mesh::{
    api::ApiError,
    config::{ConfigError, Layers},
};

use crate::{fail::Failure, out::Out};

/// Name of the configuration in a data directory.
const CONFIG_NAME: &str = "config.toml";

/// Heading of these flags in the help, so that they do not stand between a command's own.
const EVERY: &str = "Options of every command";

/// Flags of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Directory of the node's identity, store, config.toml and control socket [default: the
    /// platform's data directory]
    #[arg(long, global = true, help_heading = EVERY, value_name = "DIR", env = "QPC_DATA_DIR", hide_env_values = true)]
    data_dir: Option<PathBuf>,

    /// Configuration file [default: config.toml in the data directory]
    #[arg(long, global = true, help_heading = EVERY, value_name = "FILE", env = "QPC_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,

    /// Print one JSON object a line on stdout, and nothing else
    #[arg(long, global = true, help_heading = EVERY)]
    json: bool,
}

/// What every command knows.
#[derive(Debug, Clone)]
pub struct Context {
    /// Directory of the node's state, absolute; may not exist yet.
    pub data_dir: PathBuf,
    /// Prints.
    pub out: Out,
    config: Option<PathBuf>,
}

impl Context {
    /// Fills in defaults.
    pub fn new(global: Global) -> Result<Self, Failure> {
        let data_dir = match global.data_dir.filter(|dir| !dir.as_os_str().is_empty()) {
            Some(dir) => dir,
            None => directories::ProjectDirs::from("", "", "quicprochat")
                .map(|dirs| dirs.data_local_dir().to_owned())
                .ok_or_else(|| {
                    ApiError::usage(
                        "there is no home directory to keep a node's data in: give --data-dir DIR",
                    )
                })?,
        };
        let data_dir = std::path::absolute(&data_dir)
            .map_err(|e| ApiError::usage(format!("--data-dir {}: {e}", data_dir.display())))?;
        let config = global.config.filter(|file| !file.as_os_str().is_empty());
        Ok(Self { data_dir, out: Out { json: global.json }, config })
    }

    /// Path of the configuration in force, whether it exists or not.
    pub fn config_path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| self.data_dir.join(CONFIG_NAME))
    }

    /// Path of the configuration that belongs to the data directory.
    pub fn own_config_path(&self) -> PathBuf {
        self.data_dir.join(CONFIG_NAME)
    }

    /// File and environment; flags go on top. A file that was asked for must exist.
    pub fn layers(&self) -> Result<Layers, ConfigError> {
        let layers = match &self.config {
            Some(file) => Layers::new().file(file)?,
            None => Layers::new().file_if_present(&self.own_config_path())?,
        };
        Ok(layers.env(std::env::vars_os()))
    }
}

/// A path as text for JSON and messages.
pub fn path_text(path: &Path) -> String {
    path.display().to_string()
}
