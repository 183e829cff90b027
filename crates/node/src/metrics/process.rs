//! Process metrics from the operating system, under the names that Prometheus's own clients use.

use prometheus::{Gauge, IntGauge, Registry};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

pub struct Process {
    resident_bytes: IntGauge,
    open_files: IntGauge,
    most_files: IntGauge,
    cpu_seconds: CpuSeconds,
}

/// Fractional seconds, raised to the system's value at each update.
type CpuSeconds = prometheus::Counter;

impl Process {
    pub fn new(registry: &Registry) -> Process {
        let good = "names of metrics are well-formed and distinct";
        let gauge = |name, help| {
            let gauge = IntGauge::new(name, help).expect(good);
            registry.register(Box::new(gauge.clone())).expect(good);
            gauge
        };
        let start = Gauge::new("process_start_time_seconds", "When the process started, since 1970.").expect(good);
        registry.register(Box::new(start.clone())).expect(good);
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));
        let cpu_seconds = CpuSeconds::new("process_cpu_seconds_total", "Time on processors.").expect(good);
        registry.register(Box::new(cpu_seconds.clone())).expect(good);
        Process {
            resident_bytes: gauge("process_resident_memory_bytes", "Resident memory."),
            open_files: gauge("process_open_fds", "Open file descriptors."),
            most_files: gauge("process_max_fds", "The most file descriptors that the process may have open."),
            cpu_seconds,
        }
    }

    /// Updates the metrics. Those that the system does not report keep their values.
    pub fn look(&self) {
        if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes) {
            self.resident_bytes.set(bytes);
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            self.open_files.set(files.count() as i64);
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            self.most_files.set(i64::try_from(limit).unwrap_or(i64::MAX));
        }
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
        let counted = self.cpu_seconds.get();
        if seconds > counted {
            self.cpu_seconds.inc_by(seconds - counted);
        }
    }
}

/// From /proc/self/status: `VmRSS:     1234 kB`.
fn resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read() {
        assert_eq!(resident_bytes("VmSize:  9 kB\nVmRSS:\t   12 kB\n"), Some(12288));
        assert_eq!(resident_bytes("VmRSS:"), None);
        let process = Process::new(&Registry::new());
        process.look();
        assert!(process.resident_bytes.get() > 100_000);
        assert!(process.open_files.get() > 2);
    }
}
