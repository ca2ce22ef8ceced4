//! Our own Controller and Dstore, as `mark` runs them where no other is given: hidden roles of this program, so that what is
//! marked is always what `mark` was built with.

use std::path::PathBuf;
use std::time::Duration;

use stevedore::program::start_log;
use stevedore::{controller, dstore};

/// `mark own-controller cport R timeout period`. Returns only if it cannot run.
pub fn controller(arguments: &[String]) -> String {
    let _log = match start_log("info") {
        Ok(log) => log,
        Err(failure) => return failure.message,
    };
    let started = (|| {
        let [port, replicas, timeout_ms, period_s] = arguments else { return None };
        let period = Some(period_s.parse().ok()?).filter(|&seconds| seconds > 0).map(Duration::from_secs);
        Some(controller::start(controller::Config {
            port: port.parse().ok()?,
            timeout: Duration::from_millis(timeout_ms.parse().ok()?),
            rebalance_period: period,
            ..controller::Config::new(replicas.parse().ok()?)
        }))
    })();
    match started {
        None => "own-controller wants: cport R timeout period".into(),
        Some(Err(error)) => error.to_string(),
        Some(Ok(_running)) => loop {
            std::thread::park();
        },
    }
}

/// `mark own-dstore port cport timeout folder`. Returns only if it cannot run, or when the Controller has gone.
pub fn dstore(arguments: &[String]) -> String {
    let _log = match start_log("info") {
        Ok(log) => log,
        Err(failure) => return failure.message,
    };
    let started = (|| {
        let [port, controller_port, timeout_ms, folder] = arguments else { return None };
        Some(dstore::start(dstore::Config {
            port: port.parse().ok()?,
            timeout: Duration::from_millis(timeout_ms.parse().ok()?),
            ..dstore::Config::new(controller_port.parse().ok()?, PathBuf::from(folder))
        }))
    })();
    match started {
        None => "own-dstore wants: port cport timeout folder".into(),
        Some(Err(error)) => error.to_string(),
        Some(Ok(handle)) => handle.wait_for_controllers_end().to_string(),
    }
}
