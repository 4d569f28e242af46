//! A campaign on a real HyperQueue: server and workers of its Python package, whose client stands in for the command line that the
//! package does not have. `cargo xtask ci --only campaign`, or with `-- --ignored`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{SEAWALL, planned, succeeds, undisturbed, wait_for};

const PACKAGE: &str = "hyperqueue==0.27.0";
const SHARDS: usize = 6;

/// `hq submit --array=1-N --cpus=COUNT COMMAND...`. Tasks of the Python client have numbers from 0.
const SUBMIT: &str = r#"
import os, sys
from hyperqueue import Client, Job
from hyperqueue.job import ResourceRequest
assert sys.argv[1] == "submit"
options = dict(word.split("=") for word in sys.argv[2:] if word.startswith("--"))
command = [word for word in sys.argv[2:] if not word.startswith("--")]
first, last = map(int, options["--array"].split("-"))
assert first == 1
job = Job()
for _ in range(first, last + 1):
    job.program(["sh", "-c", 'HQ_TASK_ID=$((HQ_TASK_ID + 1)) exec "$@"', "sh", *command], cwd=os.getcwd(),
        resources=ResourceRequest(cpus=int(options["--cpus"])))
print("job", Client(os.environ["HQ_SERVER_DIR"]).submit(job).id)
"#;

/// A server and two workers.
const CLUSTER: &str = r#"
import sys, time
from hyperqueue.cluster import LocalCluster, WorkerConfig
with LocalCluster(sys.argv[1]) as cluster:
    for _ in range(2):
        cluster.start_worker(WorkerConfig(cores=1))
    open(sys.argv[1] + "/up", "w").close()
    time.sleep(100000)
"#;

/// HyperQueue, installed in a folder.
struct HyperQueue {
    folder: PathBuf,
}

/// It ends with this, as when its host dies.
struct Cluster(Child);

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl HyperQueue {
    /// Nothing without Python and the package.
    fn new(folder: &Path) -> Option<Self> {
        let hq = Self { folder: folder.to_owned() };
        let mut made = Command::new("python3");
        made.args(["-m", "venv"]).arg(folder.join("venv"));
        let mut installed = Command::new(folder.join("venv/bin/pip"));
        installed.args(["install", "--quiet", "--disable-pip-version-check", PACKAGE]);
        for command in [&mut made, &mut installed] {
            match command.output() {
                Ok(output) if output.status.success() => {}
                Ok(output) => {
                    println!("skipped: HyperQueue: {}", String::from_utf8_lossy(&output.stderr));
                    return None;
                }
                Err(error) => {
                    println!("skipped: HyperQueue: {:?}: {error}", command.get_program());
                    return None;
                }
            }
        }
        let (program, python) = (hq.path().join("hq"), folder.join("venv/bin/python"));
        fs::create_dir(hq.path()).unwrap();
        fs::write(&program, format!("#!{}\n{SUBMIT}", python.display())).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.join("cluster.py"), CLUSTER).unwrap();
        Some(hq)
    }

    fn path(&self) -> PathBuf {
        self.folder.join("path")
    }

    fn cluster(&self, server: &Path) -> Cluster {
        let mut cluster = Command::new(self.folder.join("venv/bin/python"));
        cluster.arg(self.folder.join("cluster.py")).arg(server).stdout(Stdio::null()).stderr(Stdio::null());
        let cluster = Cluster(cluster.spawn().unwrap());
        wait_for("HyperQueue's server", || server.join("up").exists());
        cluster
    }

    fn submit(&self, server: &Path, map: &str) {
        let path = std::env::var("PATH").unwrap_or_default();
        let submitted = Command::new(SEAWALL)
            .args(["campaign", "submit", map, "--engine", "hq", "--shards", &SHARDS.to_string()])
            .env("PATH", format!("{}:{path}", self.path().display()))
            .env("HQ_SERVER_DIR", server)
            .output()
            .unwrap();
        assert!(submitted.status.success(), "{}", String::from_utf8_lossy(&submitted.stderr));
    }
}

/// How many of a campaign's results files have this extension.
fn results(map: &Path, extension: &str) -> usize {
    let files = fs::read_dir(map.join("results")).into_iter().flatten().flatten();
    files.filter(|file| file.path().extension().is_some_and(|own| own == extension)).count()
}

#[test]
#[ignore = "fetches and starts HyperQueue: cargo xtask ci --only campaign"]
fn a_campaign_on_hyperqueue_loses_nothing_with_workers_that_are_killed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(hq) = HyperQueue::new(folder.path()) else { return };
    let map = planned(folder.path(), "12");
    let expected = undisturbed(&map, &folder.path().join("whole"));
    let path = map.to_str().unwrap();
    let servers = ["first", "second"].map(|name| folder.path().join(name));
    let killed = hq.cluster(&servers[0]);
    hq.submit(&servers[0], path);
    wait_for("a first result", || results(&map, "journal") + results(&map, "parquet") > 0);
    drop(killed);
    let _cluster = hq.cluster(&servers[1]);
    hq.submit(&servers[1], path);
    wait_for("all shards", || results(&map, "parquet") == SHARDS);
    succeeds(&["merge", path]);
    assert_eq!(fs::read(map.join("results.parquet")).unwrap(), expected);
}
