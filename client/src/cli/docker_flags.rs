//! Names of Docker's flags and commands that this version does not have.
//!
//! Only names: whether a flag works is decided by the commands themselves. A name listed here and
//! implemented later does no harm.

/// Flags of `run` and `create`.
const RUN: &str = "--add-host --annotation --attach -a --blkio-weight --blkio-weight-device --cap-add --cap-drop \
    --cgroup-parent --cgroupns --cidfile --cpu-count --cpu-percent --cpu-period --cpu-quota --cpu-rt-period \
    --cpu-rt-runtime --cpu-shares -c --cpus --cpuset-cpus --cpuset-mems --device --device-cgroup-rule \
    --device-read-bps --device-read-iops --device-write-bps --device-write-iops --disable-content-trust --dns \
    --dns-opt --dns-option --dns-search --domainname --env-file --expose --gpus --group-add --health-cmd \
    --health-interval --health-retries --health-start-interval --health-start-period --health-timeout --init \
    --io-maxbandwidth --io-maxiops --ip --ip6 --ipc --isolation --kernel-memory --label-file --link \
    --link-local-ip --log-driver --log-opt --mac-address --memory -m --memory-reservation --memory-swap \
    --memory-swappiness --mount --network-alias --net-alias --no-healthcheck --oom-kill-disable --oom-score-adj \
    --pid --pids-limit --pod --privileged --publish -p --publish-all -P --quiet -q --replace --restart --rootfs \
    --runtime --secret --security-opt --shm-size --storage-opt --sysctl --systemd --timeout --tls-verify --tmpfs \
    --tz --ulimit --umask --use-api-socket --userns --uts --volume-driver --volumes-from";

/// Flags of the other commands, each after its command's name.
const OTHERS: &[(&str, &str)] = &[
    ("exec", "--env-file --privileged --preserve-fds --latest -l"),
    (
        "ps",
        "--filter -f --size -s --external --namespace --ns --pod -p --sort --sync --watch -w --latest",
    ),
    (
        "logs",
        "--details --since --timestamps -t --until --names --color --latest -l",
    ),
    (
        "pull",
        "--all-tags -a --disable-content-trust --arch --os --tls-verify --creds --authfile",
    ),
    (
        "images",
        "--digests --filter -f --tree --history --sort --noheading -n",
    ),
    (
        "start",
        "--checkpoint --checkpoint-dir --all --filter -f --latest -l",
    ),
    ("attach", "--latest -l"),
    (
        "stop",
        "--signal -s --all -a --filter -f --ignore -i --latest -l --cidfile",
    ),
    ("kill", "--all -a --cidfile --latest -l"),
    ("wait", "--condition --interval -i --ignore --latest -l"),
    (
        "rm",
        "--link -l --volumes -v --all -a --cidfile --depend --filter --ignore -i --latest --time -t",
    ),
    ("inspect", "--size -s --latest -l"),
    ("rmi", "--no-prune --all -a --ignore -i --platform"),
    (
        "import",
        "--message -m --platform --arch --os --variant --quiet -q --signature-policy",
    ),
    ("info", "--debug -D"),
];

/// Commands of Docker and Podman.
const VERBS: &str = "build builder buildx commit compose config context cp diff events export healthcheck history \
    load login logout manifest mount network node pause plugin pod port prune push rename restart save search secret \
    service stack stats swarm tag top trust unpause update volume df exists init unshare";

fn has(names: &str, name: &str) -> bool {
    names.split_ascii_whitespace().any(|known| known == name)
}

/// Whether the flag is one of Docker's for the command that the words call. `flag` is as clap
/// reports it, `--memory` or `-p`.
pub(super) fn is_known(words: &[String], flag: &str) -> bool {
    let flag = flag.split('=').next().unwrap_or(flag);
    words
        .iter()
        .skip(1)
        .take_while(|word| *word != "--")
        .any(|word| match word.as_str() {
            "run" | "create" => has(RUN, flag),
            "ls" | "list" => OTHERS
                .iter()
                .any(|(verb, names)| matches!(*verb, "ps" | "images") && has(names, flag)),
            verb => OTHERS
                .iter()
                .any(|(known, names)| *known == verb && has(names, flag)),
        })
}

/// Whether Docker or Podman has such a command.
pub(super) fn is_known_verb(verb: &str) -> bool {
    has(VERBS, verb)
}
