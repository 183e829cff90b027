//! How a command ends: the exit code, and the one line on stderr.

use std::{error, fmt, io};

/// The result of a command that worked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Exit code 0.
    Yes,
    /// Exit code 1: everything worked, and the answer is no. Not found, condition failed.
    No,
}

/// Why a command did not work: exit code 2. Shown in one line.
#[derive(Debug)]
pub struct Failure(Box<dyn error::Error + Send + Sync>);

impl Failure {
    pub fn is_closed_pipe(&self) -> bool {
        self.0.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl<E: error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(Box::new(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nobody = self.0.downcast_ref().and_then(nobody_listens);
        f.write_str(&nobody.unwrap_or_else(|| self.0.to_string()).replace(['\n', '\r'], " "))
    }
}

/// What to do if no process listens at any of the endpoints.
fn nobody_listens(error: &ringfort_client::Error) -> Option<String> {
    let ringfort_client::Error::Unavailable { causes } = error else { return None };
    let all_refused = !causes.is_empty() && causes.iter().all(ringfort_client::Cause::is_connection_refused);
    let endpoints: Vec<&str> = causes.iter().map(|cause| &*cause.endpoint).collect();
    all_refused.then(|| {
        format!(
            "no node listens at {} (connection refused): give the addresses of running nodes with --endpoints or \
             RINGFORT_ENDPOINTS, or start a cluster with `ringfort playground`",
            endpoints.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::from(io::Error::other("first\nsecond"));
        assert_eq!(failure.to_string(), "first second");
        assert!(!failure.is_closed_pipe());
        assert!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).is_closed_pipe());
    }
}
