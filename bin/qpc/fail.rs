//! Why a command ends early, and with which exit code.

use std::io;

use quicprochat_mesh::{
    api::{ApiError, ErrorClass},
    config::ConfigError,
};

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// One reason, with its class.
    Api(ApiError),
    /// A configuration with any number of mistakes (exit 78).
    Config(ConfigError),
    /// Whoever read our output has had enough: a quiet, good end.
    BrokenPipe,
    /// Everything was said already; only the exit code is left.
    Said(ErrorClass),
}

impl Failure {
    /// What to tell, one line each.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Api(error) => vec![error.message.clone()],
            Self::Config(error) => error.to_string().lines().map(str::to_owned).collect(),
            Self::BrokenPipe | Self::Said(_) => vec![],
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Api(error) => error.exit_code(),
            Self::Config(_) => ErrorClass::Config.exit_code(),
            Self::BrokenPipe => 0,
            Self::Said(class) => class.exit_code(),
        }
    }

    /// What a failed write to stdout means.
    pub fn of_stdout(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Api(ApiError::failed(format!("cannot write to stdout: {error}"))),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}
