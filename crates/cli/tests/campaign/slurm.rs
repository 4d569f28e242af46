//! A campaign on a real Slurm of two nodes, of Debian's packages: not installed but unpacked, with a state of its own, all on
//! this host. `cargo xtask ci --only campaign`, or with `-- --ignored`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{SEAWALL, planned, succeeds, undisturbed, wait_for};

const PACKAGES: [&str; 8] = [
    "slurmctld",
    "slurmd",
    "slurm-client",
    "munge",
    "libmunge2",
    "slurm-wlm-basic-plugins",
    "libhwloc15",
    "liblua5.1-0",
];
/// Where Debian has libraries.
fn libraries() -> String {
    format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)
}

/// The unpacked files and their processes, which end with this.
struct Slurm {
    root: PathBuf,
    state: PathBuf,
    daemons: Vec<Child>,
}

impl Slurm {
    /// Fetches and starts it; nothing without apt.
    fn new(folder: &Path) -> Option<Self> {
        let (root, state, debs) = (folder.join("root"), folder.join("state"), folder.join("debs"));
        fs::create_dir_all(&debs).unwrap();
        let fetched =
            Command::new("apt-get").arg("download").args(PACKAGES).current_dir(&debs).output().ok()?;
        if !fetched.status.success() {
            println!("skipped: apt-get: {}", String::from_utf8_lossy(&fetched.stderr));
            return None;
        }
        for deb in fs::read_dir(&debs).unwrap().flatten() {
            assert!(
                Command::new("dpkg-deb").arg("-x").arg(deb.path()).arg(&root).status().unwrap().success()
            );
        }
        // munged looks at the rights of all folders above its socket.
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        for name in ["munge", "ctld", "n1", "n2", "log"] {
            fs::create_dir_all(state.join(name)).unwrap();
        }
        fs::set_permissions(state.join("munge"), Permissions::from_mode(0o711)).unwrap();
        let mut slurm = Self { root, state, daemons: Vec::new() };
        slurm.start();
        Some(slurm)
    }

    fn start(&mut self) {
        let key = self.state.join("munge/key-file");
        let mut bytes = blake3::Hasher::new();
        bytes.update(self.state.to_string_lossy().as_bytes());
        let mut secret = [0; 1024];
        bytes.finalize_xof().fill(&mut secret);
        fs::write(&key, secret).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o400)).unwrap();
        fs::write(self.state.join("slurm.conf"), self.configuration()).unwrap();
        let munge = |name: &str| format!("--{name}={}", self.state.join("munge").join(name).display());
        let mut munged = self.command("munged");
        munged
            .args(["--foreground", "--force"])
            .arg(format!("--socket={}", self.state.join("munge/s").display()));
        munged.arg(munge("key-file")).arg(munge("pid-file")).arg(munge("log-file")).arg(munge("seed-file"));
        let mut controller = self.command("slurmctld-wlm");
        controller.args(["-D", "-c"]);
        let nodes = ["n1", "n2"].map(|node| {
            let mut daemon = self.command("slurmd-wlm");
            daemon.args(["-D", "-N", node, "-d"]).arg(self.root.join("usr/sbin/slurmstepd-wlm"));
            daemon
        });
        self.spawn(munged);
        wait_for("munge's socket", || self.state.join("munge/s").exists());
        self.spawn(controller);
        for node in nodes {
            self.spawn(node);
        }
        wait_for("two idle nodes", || {
            self.said("sinfo", &["--noheader", "-N", "-o", "%T"]).matches("idle").count() == 2
        });
    }

    fn spawn(&mut self, mut command: Command) {
        let log = fs::File::create(self.state.join("log").join(format!("{}", self.daemons.len()))).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemons.push(command.spawn().unwrap());
    }

    fn configuration(&self) -> String {
        let (state, root) = (self.state.display(), self.root.display());
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let host = host.trim().split('.').next().unwrap().to_owned();
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        let user = user.trim();
        let node = |n: u32| {
            format!(
                "NodeName=n{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={} CPUs=1 RealMemory=2000\n",
                17000 + n
            )
        };
        format!(
            "ClusterName=seawall\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort=16817\nAuthType=auth/munge\n\
             AuthInfo=socket={state}/munge/s,cred_expire=5\nCredType=cred/munge\nSlurmUser={user}\nSlurmdUser={user}\n\
             StateSaveLocation={state}/ctld\nSlurmdSpoolDir={state}/%n\nSlurmctldPidFile={state}/ctld.pid\n\
             SlurmdPidFile={state}/%n.pid\nSlurmctldLogFile={state}/log/ctld\nSlurmdLogFile={state}/log/%n\n\
             PluginDir={root}/{}/slurm-wlm\nProctrackType=proctrack/pgid\nTaskPlugin=task/none\n\
             SwitchType=switch/none\nMpiDefault=none\nMailProg=/bin/true\nJobAcctGatherType=jobacct_gather/none\n\
             AccountingStorageType=accounting_storage/none\nSelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\n\
             SchedulerType=sched/backfill\nSchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,defer\n\
             SlurmdTimeout=10\nInactiveLimit=0\nKillWait=2\nMinJobAge=300\nReturnToService=2\nJobRequeue=1\n\
             UnkillableStepTimeout=10\nSlurmdParameters=config_overrides\n{}{}\
             PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP\n",
            libraries(),
            node(1),
            node(2)
        )
    }

    fn environment(&self, command: &mut Command) {
        let libraries = self.root.join(libraries());
        let path = std::env::var("PATH").unwrap_or_default();
        let root = self.root.display();
        command
            .env(
                "LD_LIBRARY_PATH",
                format!("{}:{}", libraries.display(), libraries.join("slurm-wlm").display()),
            )
            .env("PATH", format!("{root}/usr/bin:{root}/usr/sbin:{path}"))
            .env("SLURM_CONF", self.state.join("slurm.conf"));
    }

    fn command(&self, program: &str) -> Command {
        let place = ["usr/sbin", "usr/bin"].map(|folder| self.root.join(folder).join(program));
        let mut command = Command::new(place.iter().find(|place| place.exists()).unwrap());
        self.environment(&mut command);
        command
    }

    fn said(&self, program: &str, args: &[&str]) -> String {
        String::from_utf8(self.command(program).args(args).output().unwrap().stdout).unwrap()
    }

    /// The first node dies for good: its daemon, the tasks that it started, and the steps that watch these.
    fn kill_first_node(&mut self) {
        let node = &mut self.daemons[2];
        let folder = self.root.display().to_string();
        let is_task = |process: &u32| {
            let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            let mut variables = environment.split(|byte| *byte == 0);
            let text = |variable: &[u8]| String::from_utf8_lossy(variable).into_owned();
            variables.clone().any(|variable| text(variable) == "SLURMD_NODENAME=n1")
                && variables.any(|variable| text(variable).contains(&folder))
        };
        let tasks: Vec<u32> = processes().filter(is_task).collect();
        let steps = tasks.iter().filter_map(|task| parent_of(*task)).filter(|parent| *parent > 1);
        let dying: Vec<u32> = [node.id()].into_iter().chain(steps).chain(tasks.iter().copied()).collect();
        for process in dying {
            let _ = Command::new("kill").args(["-9", &process.to_string()]).status();
        }
        let _ = node.wait();
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            let _ = Command::new("kill").arg(daemon.id().to_string()).status();
        }
        for daemon in &mut self.daemons {
            let _ = daemon.wait();
        }
    }
}

fn parent_of(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[test]
#[ignore = "fetches and starts Slurm: cargo xtask ci --only campaign"]
fn a_campaign_on_slurm_loses_nothing_with_a_node_that_dies() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut slurm) = Slurm::new(&folder.path().join("slurm")) else { return };
    let map = planned(folder.path(), "12");
    let expected = undisturbed(&map, &folder.path().join("whole"));
    let path = map.to_str().unwrap();
    let mut submit = Command::new(SEAWALL);
    submit.args(["campaign", "submit", path, "--engine", "slurm", "--shards", "6"]);
    slurm.environment(&mut submit);
    let submitted = submit.output().unwrap();
    assert!(submitted.status.success(), "{}", String::from_utf8_lossy(&submitted.stderr));
    // Some results are there, and the first node works on more.
    wait_for("a first result", || fs::read_dir(map.join("results")).is_ok_and(|files| files.count() > 0));
    let mut status = Command::new(SEAWALL);
    status.args(["campaign", "status", path]);
    slurm.environment(&mut status);
    let said = String::from_utf8(status.output().unwrap().stdout).unwrap();
    assert!(said.contains("slurm job "), "{said}");
    slurm.kill_first_node();
    wait_for("the end of all tasks", || slurm.said("squeue", &["--noheader"]).trim().is_empty());
    succeeds(&["merge", path]);
    assert_eq!(fs::read(map.join("results.parquet")).unwrap(), expected);
}
