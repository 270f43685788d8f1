//! Names of contract code for `perf`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zvm_jit::perf::{self, Format};

/// Whether and how the names of native code are written down for a profile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Profiling {
    /// They are not.
    #[default]
    Off,
    /// Into `/tmp/perf-PID.map`.
    PerfMap,
    /// With the code and times into `jit-PID.dump` in the current folder.
    JitDump,
}

/// The text names no way to write names down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of off, perfmap, jitdump")]
pub struct ProfilingError(String);

impl FromStr for Profiling {
    type Err = ProfilingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "perfmap" => Ok(Self::PerfMap),
            "jitdump" => Ok(Self::JitDump),
            _ => Err(ProfilingError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Profiling {
    type Error = ProfilingError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Profiling {
    /// Writes down the names of all code that is compiled from now on.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn start(self) -> std::io::Result<()> {
        let format = match self {
            Self::Off => return Ok(()),
            Self::PerfMap => Format::PerfMap,
            Self::JitDump => Format::JitDump,
        };
        let path = perf::start(format)?;
        tracing::info!(path = %path.display(), "names of native code");
        Ok(())
    }
}
