//! The options that all client commands share.

use crate::failure::Failure;
use clap::{Args, ValueEnum};
use ringfort_client::Client;
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IsTerminal};
use std::time::Duration;

/// After this long, a waiting user is told what the command waits for.
const NOTICE_AFTER: Duration = Duration::from_secs(1);

/// Options of every client command.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Connection and output")]
pub struct ClientOptions {
    /// Nodes to ask, host:port, separated by commas; one that answers is enough.
    #[arg(
        long,
        env = "RINGFORT_ENDPOINTS",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        default_value = "127.0.0.1:50051"
    )]
    pub endpoints: Vec<String>,

    /// The output format. The fields of json are stable; table is for people.
    #[arg(short, long, env = "RINGFORT_OUTPUT", value_enum, default_value_t = Output::Table)]
    pub output: Output,

    /// The time limit for a request, including retries: 500ms, 5s, 1m.
    #[arg(long, env = "RINGFORT_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub timeout: Duration,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Table,
    Json,
}

impl ClientOptions {
    /// Runs `command` with a client of the cluster, on its own runtime.
    pub fn run<T, F>(&self, command: impl FnOnce(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = Client::connect(&self.endpoints)?.with_timeout(self.timeout);
            let notice = self.notice_of_silence(client.clone());
            let checked = async {
                client.check_endpoints().await?;
                command(client.clone()).await
            };
            tokio::select! {
                result = checked => result,
                never = notice => match never {},
            }
        })
    }

    /// Tells the user of a terminal that no node has answered yet and that the command keeps asking. Never returns.
    async fn notice_of_silence(&self, client: Client) -> Infallible {
        tokio::time::sleep(NOTICE_AFTER).await;
        let is_silent = self.endpoints.iter().all(|endpoint| !client.answers(endpoint));
        if is_silent && self.timeout > NOTICE_AFTER && io::stderr().is_terminal() {
            eprintln!(
                "no answer from {} yet: trying for up to {:?} (--timeout)",
                self.endpoints.join(", "),
                self.timeout
            );
        }
        std::future::pending().await
    }
}

/// A whole number with a unit: ms, s, m; without one it is seconds. At least a millisecond.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXAMPLE: &str = "give a whole number above 0 with the unit ms, s or m, such as 1500ms, 5s or 2m";
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        _ => return Err(EXAMPLE.to_owned()),
    };
    match digits.parse::<u32>() {
        Ok(number) if number > 0 => Ok(Duration::from_millis(u64::from(number) * milliseconds)),
        _ => Err(EXAMPLE.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, milliseconds) in [("500ms", 500), ("5s", 5000), ("5", 5000), ("2m", 120_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "0s", "s", "-1s", "1.5s", "5h", "5 s", "99999999999s"] {
            let told = parse_duration(bad).unwrap_err();
            assert!(told.starts_with("give a whole number") && told.contains("such as 1500ms"), "{bad}: {told}");
        }
    }
}
