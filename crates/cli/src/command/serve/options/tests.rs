use super::*;
use crate::args::Cli;
use crate::command::Command;
use clap::{CommandFactory, Parser};
use ringfort_node::{DISK_TIMEOUT, LEAD_AFTER, REPLACE_AFTER};

fn serve(args: &[&str]) -> Serve {
    let required = ["ringfort", "serve", "--node-id=a", "--raft-dir=d"];
    match Cli::parse_from(required.iter().chain(args)).command {
        Command::Serve(serve) => *serve,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_loopback_is_listened_on_without_a_word() {
    assert_eq!(serve(&["--listen=127.0.0.2"]).check(), Ok(()));
    assert_eq!(serve(&["--listen=::1"]).check(), Ok(()));
    for reachable in ["10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1"] {
        let listen = format!("--listen={reachable}");
        let ip: IpAddr = reachable.parse().unwrap();
        assert_eq!(serve(&[&listen, "--advertise=a"]).check(), Err(Contradiction::Insecure(ip)));
        assert_eq!(serve(&[&listen, "--advertise=a", "--insecure"]).check(), Ok(()));
    }
    let nowhere = serve(&["--listen=0.0.0.0", "--insecure"]).check();
    assert!(matches!(nowhere, Err(Contradiction::NothingToAdvertise(_))));
}

#[test]
fn an_election_timeout_is_one_that_a_cluster_may_have() {
    let timing = serve(&["--election-timeout=2s"]).node_config().timing.map(Timing::election_timeout);
    assert_eq!(timing, Some(Duration::from_secs(2)));
    assert_eq!(serve(&[]).node_config().timing, None, "a node that joins needs none");
    for refused in ["99ms", "11s", "0s", "soon"] {
        let required = ["ringfort", "serve", "--node-id=a", "--raft-dir=d"];
        let flag = format!("--election-timeout={refused}");
        assert!(Cli::try_parse_from(required.iter().copied().chain([&*flag])).is_err(), "{refused}");
    }
    let told = parse_election_timeout("400").unwrap_err();
    assert!(told.ends_with("; 400 means 400 s: write 400ms for milliseconds"), "{told}");
}

#[test]
fn a_log_level_is_a_level_or_a_filter() {
    for good in ["info", "WARN", "off", "warn,ringfort_core=debug", "ringfort_node[span]=trace"] {
        assert_eq!(parse_filter(good).as_deref(), Ok(good));
    }
    for bad in ["verbose", "info,verbose", "ringfort_core=loud"] {
        assert!(parse_filter(bad).is_err(), "{bad}");
    }
    let told = parse_filter("verbose").unwrap_err();
    assert!(told.contains("error, warn, info, debug, trace"), "{told}");
}

#[test]
fn equal_ports_are_said_to_be_equal() {
    let same = |args: &[&str]| serve(args).check().map_err(|error| error.to_string());
    assert_eq!(same(&["--port=0", "--raft-port=0", "--http-port=0"]), Ok(()));
    let told = same(&["--port=7000", "--raft-port=7000"]).unwrap_err();
    assert!(told.starts_with("--port and --raft-port are both 7000"), "{told}");
    assert!(same(&["--http-port=12001"]).unwrap_err().contains("--raft-port and --http-port"));
    assert!(same(&["--http-port=50051"]).is_err());
}

#[test]
fn ports_and_sizes_that_are_none_say_what_to_give() {
    let required = ["ringfort", "serve", "--raft-dir=d", "--node-id=a"];
    let refused = |arg: &str| Cli::try_parse_from(required.iter().chain(&[arg])).unwrap_err().to_string();
    let told = refused("--port=tcp://10.0.0.1:50051");
    assert!(told.contains("--port") && told.contains("enableServiceLinks"), "{told}");
    assert!(refused("--raft-port=70000").contains("up to 65535"));
    assert!(refused("--max-memory=1 apple").contains("1GiB"));
    assert!(refused("--move-bandwidth=0").contains("1 or more"));
    assert_eq!(serve(&["--max-memory=1GiB"]).max_memory, Some(1 << 30));
}

#[test]
fn one_command_line_bootstraps_one_node() {
    assert!(serve(&["--bootstrap-as=a"]).node_config().bootstrap);
    assert!(!serve(&["--bootstrap-as=b"]).node_config().bootstrap);
    assert!(!serve(&[]).node_config().bootstrap);
}

#[test]
fn every_setting_has_a_variable_of_its_name_and_a_place_in_the_manual() {
    let manual = include_str!("../../../../../../docs/operating.md");
    let command = Cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    for arg in serve.get_arguments().filter(|arg| arg.get_id() != "help") {
        let long = arg.get_long().unwrap();
        let is_told = long == "config" || arg.is_hide_set() || manual.contains(&format!("\n| `{long}` | "));
        assert!(is_told, "docs/operating.md does not tell of {long}");
        let name = long.replace('-', "_").to_uppercase();
        assert_eq!(arg.get_env().unwrap().to_str().unwrap(), format!("RINGFORT_{name}"));
    }
}

#[test]
fn the_least_disk_timeout_is_told() {
    assert_eq!(Timing::DEFAULT.least_disk_timeout(), 4 * Timing::DEFAULT.election_timeout());
    let command = Cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    let told = serve.get_arguments().find(|arg| arg.get_id() == "disk_timeout").and_then(|arg| arg.get_help());
    let least = format!("{}ms if that is {}", Timing::DEFAULT.least_disk_timeout().as_millis(), Timing::DEFAULT);
    assert!(told.is_some_and(|told| told.to_string().contains(&least)), "{least}");
}

#[test]
fn times_have_the_defaults_of_the_core() {
    let Serve { replace_after, disk_timeout, lead_after, .. } = serve(&[]);
    assert_eq!((replace_after, disk_timeout, lead_after), (REPLACE_AFTER, DISK_TIMEOUT, LEAD_AFTER));
}

#[test]
fn ipv6_addresses_are_understood_with_their_brackets() {
    let given = serve(&["--listen=[::1]", "--advertise=[::1]", "--join-addr=[::1]:50051"]);
    assert_eq!((given.listen, given.advertise.as_deref()), ("::1".parse().unwrap(), Some("::1")));
    let required = ["ringfort", "serve", "--raft-dir=d"];
    let refused = |args: &[&str]| Cli::try_parse_from(required.iter().chain(args)).unwrap_err().to_string();
    let told = refused(&["--node-id=a", "--join-addr=::1:50051"]);
    assert!(told.contains("write [::1]:50051"), "{told}");
    for everywhere in ["--advertise=0.0.0.0", "--advertise=::", "--advertise=[::]"] {
        let told = refused(&["--node-id=a", everywhere]);
        assert!(told.contains("others can't dial it"), "{told}");
    }
    for name in ["--node-id=a b", "--node-id=a/b", "--node-id="] {
        let told = refused(&[name]);
        assert!(told.contains("letters, digits"), "{told}");
    }
}
