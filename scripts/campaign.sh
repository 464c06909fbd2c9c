#!/usr/bin/env bash
# The long tests of what is promised, each against real nodes of a release build (panics: of a build
# for tests, since no other can be told to panic):
#
#   campaign.sh kills [N]        N times kill -9 of one of three nodes under load (1000)
#   campaign.sh eio [N]          the n-th sync of a node fails, for n = 1 to N (50); needs strace
#   campaign.sh partitions [N]   N cuts of a line of five in network name spaces (20); needs root and ip
#   campaign.sh half-open [N]    the same without a sign: no end learns that its link is dead (10)
#   campaign.sh splits [N] [S]   N times (20) S seconds (60) of two and three nodes apart; how soon all arrives
#   campaign.sh loss [S]         30 % of all packets of a QUIC link lost, both ways, for S seconds (600); needs
#                                root, ip and nft
#   campaign.sh floods           honest traffic beside every neighbour that misbehaves
#   campaign.sh soak [MINUTES]   half of what the line does at most, peers come and go (60)
#   campaign.sh overload [S]     ten times what the line does at most, for S seconds (120)
#   campaign.sh steady [S]       2,000 durable messages a second for S seconds (300)
#   campaign.sh panics [S]       a panic a second, of every part of three nodes in turn, for S seconds (300)
#   campaign.sh recovery [N]     N times kill -9 of a node that has not come up yet (100)
#   campaign.sh first-start      a first start killed at every call that changes a file; needs strace
#   campaign.sh disk-faults [N]  the n-th call on a file of the store fails, each call, n to N (200); needs strace
#   campaign.sh damage           files of a store cut at every byte of their tails and altered anywhere
#   campaign.sh power-cuts [N]   N power cuts amid a commit, of which each sector may be on the disk (1000)
#   campaign.sh clocks           wall clocks set by hours to decades, of running and restarted nodes; needs faketime
#   campaign.sh removals [N]     N times kill -9 of a store that removes and expires in bulk (100)
#   campaign.sh descriptors [S]  64 file descriptors and 200 silent strangers for S seconds (30)
#   campaign.sh slow-handshakes [N] [S]  N connections that never finish their handshake (1000), S seconds (60)
#   campaign.sh silent-links [N] N links over TCP and N over QUIC whose other ends fall silent (200)
#   campaign.sh memory [MIB] [S] a relay in a control group of that size under all it is sent (128, 120); needs root
#   campaign.sh all              all of them
#
# Each leaves target/campaign/NAME.json: what it came to, the seed (QPC_SEED to repeat one), the
# commit, and the disk's own sync rate of the same minutes. Exit 0: passed. 1: failed, with the nodes'
# directories, logs and the load's log kept where it says. 3: not measured, with the reason.
# QPC names another qpc than target/release/qpc, CAMPAIGN_OUT another directory for the files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${CAMPAIGN_OUT:-target/campaign}
mkdir -p "$out"
out=$(cd "$out" && pwd)
seed=${QPC_SEED:-$((RANDOM * 32768 + RANDOM))}
RANDOM=$((seed % 32768))
ready_within_s=30

say() { printf '%s  %s\n' "$(date +%T)" "$*" >&2; }
die() { say "failed: $*"; exit 1; }

# Not measured is said and is no pass.
not_measured() {
    say "$name: not measured: $*"
    jq -n --arg campaign "$name" --arg reason "$*" '{$campaign, passed: null, not_measured: $reason}' >"$out/$name.json"
    exit 3
}

# --- Nodes -------------------------------------------------------------------------------------

declare -A pid_of url_of space_of group_of peers_of
peak_rss_kib=0
slowest_ready_ms=0

now_ms() { date +%s%3N; }

dir_of() { printf '%s/%s' "$work" "$1"; }

# launch NAME: listens where it did before, dials peers_of[NAME], in the name space space_of[NAME]; with
# $open_files file descriptors at most where that is set. Waits for nothing.
launch() {
    local node=$1 listen command=()
    [[ -z ${open_files:-} ]] || command=(prlimit "--nofile=$open_files")
    [[ -z ${space_of[$node]:-} ]] || command+=(ip netns exec "${space_of[$node]}")
    # From its first page on: what a process has when it is moved is not counted to where it goes.
    [[ -z ${group_of[$node]:-} ]] || command+=(sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "${group_of[$node]}")
    [[ ! -p $work/$node.panics ]] || command+=(env "QPC_TEST_PANICS=$work/$node.panics")
    command+=("$qpc" --json --data-dir "$(dir_of "$node")" run --health-listen 127.0.0.1:0)
    for listen in ${url_of[$node]:-quic://127.0.0.1:0 tcp://127.0.0.1:0}; do command+=(--listen "$listen"); done
    for peer in ${peers_of[$node]:-}; do command+=(--peer "$peer"); done
    : >"$work/$node.out"
    QPC_TRANSPORT_KEEPALIVE=${keepalive:-1s} "${command[@]}" >"$work/$node.out" 2>>"$work/$node.log" &
    pid_of[$node]=$!
}

# start NAME: launches it and waits until it is ready.
start() {
    local node=$1 began line
    began=$(now_ms)
    launch "$node"
    until grep -q '"event":"ready"' "$work/$node.out"; do
        kill -0 "${pid_of[$node]}" 2>/dev/null || die "$node ended: $(tail -n 3 "$work/$node.log")"
        (($(now_ms) - began < ready_within_s * 1000)) || die "$node was not ready within $ready_within_s s"
        sleep 0.02
    done
    line=$(head -n 1 "$work/$node.out")
    url_of[$node]=$(jq -r '.listen | join(" ")' <<<"$line")
    # Of ip netns exec it is the same process.
    pid_of[$node]=$(jq -r .pid <<<"$line")
    local took=$(($(now_ms) - began))
    ((took <= slowest_ready_ms)) || slowest_ready_ms=$took
}

# The most memory that a node ever had resident.
note_rss() {
    local kib
    kib=$(awk '/^VmHWM:/ {print $2}' "/proc/${pid_of[$1]}/status" 2>/dev/null || true)
    [[ -z $kib ]] || ((kib <= peak_rss_kib)) || peak_rss_kib=$kib
}

kill_hard() {
    note_rss "$1"
    kill -9 "${pid_of[$1]}"
    wait "${pid_of[$1]}" 2>/dev/null || true
}

stop_all() {
    local node
    for node in "${!pid_of[@]}"; do
        kill -9 "${pid_of[$node]}" 2>/dev/null || true
        wait "${pid_of[$node]}" 2>/dev/null || true
    done
}

ask() { "$qpc" --json --data-dir "$(dir_of "$1")" "${@:2}"; }
address_of() { ask "$1" status | jq -r .address; }
url() { tr ' ' '\n' <<<"${url_of[$1]}" | grep "^$2:" | head -n 1; }

# until_so SECONDS WHAT COMMAND…: waits for a command to succeed.
until_so() {
    local until=$(($(now_ms) + $1 * 1000)) what=$2
    shift 2
    until "$@"; do
        (($(now_ms) < until)) || die "waited in vain for $what"
        sleep 0.1
    done
}

knows() { ask "$1" routes | jq -e --arg to "$(address_of "$2")" -s 'any(.destination == $to)' >/dev/null; }

# A line of nodes over QUIC and TCP in turn.
line() {
    local before="" scheme=quic node
    for node in "$@"; do
        [[ -z $before ]] || peers_of[$node]=$(url "$before" $scheme)
        [[ $scheme == quic ]] && scheme=tcp || scheme=quic
        start "$node"
        before=$node
    done
    until_so 60 "a route from $1 to $before" knows "$1" "$before"
    until_so 60 "a route from $before to $1" knows "$before" "$1"
}

# --- Load and verdict --------------------------------------------------------------------------

load_pid=""
memory_log=""
log_bytes() { stat -L -c %s "$work/load.jsonl" 2>/dev/null || printf 0; }

# Where latency is what counts the load's log shares no disk with the nodes: the system writes half a
# minute of it at once, 45 MiB, and every commit waits for that.
log_in_memory() {
    [[ -w /dev/shm ]] || { say "there is no /dev/shm: the load's log is on the nodes' disk"; return 0; }
    memory_log=$(mktemp "/dev/shm/qpc-$name.XXXXXX")
    ln -s "$memory_log" "$work/load.jsonl"
}

# load ARGS…: begins in the background; load_ends waits for its end, load_stop ends the sending first.
load() {
    "$qpc" --json bench load --log "$work/load.jsonl" "$@" >"$work/load.json" 2>>"$work/load.err" &
    load_pid=$!
}
load_ends() {
    # 75 says that something is missing; the comparison says what.
    wait "$load_pid" || (($? == 75)) || die "the load ended badly: $(tail -n 3 "$work/load.err")"
    load_pid=""
}
load_stop() {
    kill -INT "$load_pid"
    load_ends
}

# Waits until the load's log has grown: it goes on.
load_goes_on() {
    local from=$(($(log_bytes) + ${1:-4096})) until=$(($(now_ms) + 120000))
    until (($(log_bytes) >= from)); do
        kill -0 "$load_pid" 2>/dev/null || die "the load ended: $(tail -n 3 "$work/load.err")"
        (($(now_ms) < until)) || die "the load came to a standstill"
        sleep 0.02
    done
}

# compare NODES…: what the log says beside what the nodes still have.
compare() {
    local dirs=() node
    for node in "$@"; do dirs+=("$(dir_of "$node")"); done
    "$qpc" --json bench verify "$work/load.jsonl" --data-dir "${dirs[@]}" >"$work/verify.json" ||
        [[ -s $work/verify.json ]] || die "the logs cannot be compared"
}

disk() { "$qpc" --json bench disk "$work" --seconds "${1:-2}" >"$work/disk.json"; }

# evidence FILTER [JQ-ARGS…]: writes the evidence file. FILTER is a jq object of what this campaign
# adds; `.passed` in it is and-ed with nothing lost, duplicate, phantom or out of order.
evidence() {
    local filter=$1 node
    shift
    for node in "${!pid_of[@]}"; do note_rss "$node"; done
    [[ -s $work/verify.json ]] || echo '{}' >"$work/verify.json"
    [[ -s $work/disk.json ]] || disk
    jq -n --slurpfile verify "$work/verify.json" --slurpfile disk "$work/disk.json" \
        --arg campaign "$name" --arg commit "$commit" --argjson seed "$seed" --arg version "$("$qpc" version | head -n 1)" \
        --argjson cores "$(nproc)" --argjson rss "$peak_rss_kib" --argjson ready "$slowest_ready_ms" \
        --argjson began "$began_ms" --argjson ended "$(now_ms)" "$@" "
        \$verify[0] as \$v | \$disk[0] as \$d | ($filter) as \$own
        | {campaign: \$campaign, commit: \$commit, version: \$version, cores: \$cores, seed: \$seed,
           duration_s: ((\$ended - \$began) / 1000),
           sent: \$v.sent, acked: \$v.acked, refused: ([\$v.refused // {} | .[]] | add // 0), unknown: \$v.unknown,
           delivered: \$v.delivered, present: \$v.present, lost: \$v.lost, duplicate: \$v.duplicate,
           phantom: \$v.phantom, gap: \$v.gap, out_of_order: \$v.out_of_order,
           unacked_received: \$v.unacked_received, named: \$v.named,
           peak_rss_mib: (\$rss / 1024 * 10 | round / 10), slowest_ready_ms: \$ready,
           disk_syncs_per_s: \$d.syncs_per_s, disk_sync_p50_ms: \$d.sync_p50_ms, disk_sync_p99_ms: \$d.sync_p99_ms}
          + \$own
        | .passed = ((\$own.passed | if . == null then true else . end)
                     and ([.lost, .duplicate, .phantom, .gap] | all(. == null or . == 0)))" >"$out/$name.json"
    jq -c '{campaign, passed, sent, acked, delivered, lost, duplicate, phantom, gap, peak_rss_mib, duration_s}' "$out/$name.json"
    if [[ $(jq .passed "$out/$name.json") != true ]]; then
        keep=1
        die "$name: see $out/$name.json and $work"
    fi
}

# --- Campaigns ---------------------------------------------------------------------------------

kills() {
    local n=${1:-1000} victim nodes=(source relay sink)
    line "${nodes[@]}"
    load --from "$(dir_of source)" --to "$(dir_of sink)" --rate 200 --window 16 --seconds 1000000 --settle 300s
    load_goes_on
    for ((kill = 1; kill <= n; kill++)); do
        load_goes_on 2000
        # The moment is what is tried out.
        sleep "0.$(printf %03d $((RANDOM % 300)))"
        victim=${nodes[RANDOM % 3]}
        kill_hard "$victim"
        start "$victim"
        ((kill % 50)) || say "$kill kills, slowest start $slowest_ready_ms ms"
    done
    load_goes_on
    load_stop
    compare "${nodes[@]}"
    evidence '{kills: $kills, passed: ($v.present == 0 and $v.acked > 0)}' --argjson kills "$n"
}

# What a node does when it is asked something shows that its threads are traced.
traces() {
    ask node status >/dev/null 2>&1 || true
    [[ -s $work/trace ]]
}

# Every answer that a message is safe is of a request that was there before a sync that came back well,
# and one sync failed.
all_synced() {
    awk '/command\\":\\"send/ {waiting++}
         / fd?a?t?a?sync\(.* = 0|<\.\.\. fd?a?t?a?sync resumed>.* = 0/ {synced += waiting; waiting = 0}
         /INJECTED/ {failed = 1}
         /status\\":\\"queued/ {if (synced-- < 1) bad = 1}
         END {exit !failed || bad}' "$1"
}

eio() {
    local n=${1:-50} i code wrong=0 tracer nowhere=0123456789abcdef0123456789abcdef
    command -v strace >/dev/null || not_measured "strace is not installed"
    strace -qq -o /dev/null true 2>/dev/null || not_measured "strace may trace nothing here"
    start node
    for ((i = 1; i <= n; i++)); do
        : >"$work/trace"
        strace -f -qq -s 400 -o "$work/trace" \
            -e trace=read,recvfrom,readv,write,sendto,writev,sendmsg,fsync,fdatasync \
            -e inject=fsync,fdatasync:error=EIO:when="$i" -p "${pid_of[node]}" 2>>"$work/strace.err" &
        tracer=$!
        until_so 60 "strace to attach" traces
        load --from "$(dir_of node)" --to $nowhere --rate 200 --window 8 --seconds 1000 --settle 0s
        until_so 60 "the node to end of its failed sync" eval '! kill -0 "${pid_of[node]}" 2>/dev/null'
        code=0
        wait "${pid_of[node]}" || code=$?
        wait $tracer || true
        load_stop
        ((code != 0)) || { say "n = $i: exit 0 after a failed sync"; wrong=$((wrong + 1)); }
        all_synced "$work/trace" || { say "n = $i: acknowledged without a sync, or none failed"; wrong=$((wrong + 1)); }
        note_rss node
        start node
    done
    compare node
    evidence '{failed_syncs: $n, wrong: $wrong, passed: ($wrong == 0 and $v.unobserved == 0 and $v.present == $v.acked)}' \
        --argjson n "$n" --argjson wrong "$wrong"
}

# lay_cables N SCHEMES…: N name spaces in a row, each link through a bridge in a name space of its own:
# with the bridge down both ends keep their carrier and nothing arrives. A node in each; the links are of
# these schemes in turn.
spaces=()
lay_cables() {
    ((EUID == 0)) || not_measured "network name spaces need root"
    command -v ip >/dev/null || not_measured "ip (iproute2) is not installed"
    local n=$1 i space
    shift
    for ((i = 1; i <= n; i++)); do
        space="qpc$$-$i"
        ip netns add "$space" 2>/dev/null || not_measured "this system lets nobody make network name spaces"
        spaces+=("$space")
        ip -n "$space" link set lo up
    done
    for ((i = 1; i < n; i++)); do
        space="qpc$$-m$i"
        ip netns add "$space"
        spaces+=("$space")
        ip -n "$space" link add name cable type bridge 2>/dev/null || not_measured "this kernel has no bridges"
        ip link add name "l$i" netns "$space" type veth peer name right netns "qpc$$-$i"
        ip link add name "r$i" netns "$space" type veth peer name left netns "qpc$$-$((i + 1))"
        ip -n "$space" link set "l$i" master cable up
        ip -n "$space" link set "r$i" master cable up
        ip -n "$space" link set cable up
        ip -n "qpc$$-$i" addr add "10.77.$i.1/24" dev right
        ip -n "qpc$$-$i" link set right up
        ip -n "qpc$$-$((i + 1))" addr add "10.77.$i.2/24" dev left
        ip -n "qpc$$-$((i + 1))" link set left up
    done
    for ((i = 1; i <= n; i++)); do
        space_of[n$i]="qpc$$-$i"
        # On every address: a node dials over QUIC from where it listens. To the left it dials.
        url_of[n$i]="quic://0.0.0.0:7410 tcp://0.0.0.0:7410"
        ((i == 1)) || peers_of[n$i]="${*:$((i % $# + 1)):1}://10.77.$((i - 1)).1:7410"
        start n$i
    done
    until_so 60 "a route from end to end" knows n1 "n$n"
    until_so 60 "a route back" knows "n$n" n1
}

# sever N HOW, heal N HOW: of the link between nodes N and N + 1.
sever() { case $2 in
    silent) ip -n "qpc$$-m$1" link set cable down ;;
    carrier) ip -n "qpc$$-$1" link set right down ;;
    esac }
heal() { case $2 in
    silent) ip -n "qpc$$-m$1" link set cable up ;;
    carrier) ip -n "qpc$$-$1" link set right up ;;
    esac }

count_links() { ask "$1" peers | jq -s length; }
has_links() { (($(count_links "$1") == $2)); }

# cuts N HOW…: cuts random links in turn in these ways, load going on from end to end both ways.
cuts() {
    local n=$1 i at how links healed_ms slowest_heal_ms=0
    shift
    lay_cables 5 quic tcp
    load --from "$(dir_of n1)" "$(dir_of n5)" --to "$(dir_of n1)" "$(dir_of n5)" --rate 100 --seconds 1000000 --settle 300s
    load_goes_on
    for ((i = 1; i <= n; i++)); do
        at=$((RANDOM % 4 + 1))
        how=${*:$((i % $# + 1)):1}
        sever $at "$how"
        links=1
        ((at > 1)) || links=0
        until_so 60 "n$at to see that its link is cut" has_links n$at $links
        load_goes_on 20000
        heal $at "$how"
        healed_ms=$(now_ms)
        until_so 120 "the link of n$at to come back" has_links n$at $((links + 1))
        healed_ms=$(($(now_ms) - healed_ms))
        ((healed_ms <= slowest_heal_ms)) || slowest_heal_ms=$healed_ms
        say "cut $i of $n ($how, link $at), back after $healed_ms ms"
    done
    load_stop
    compare n1 n2 n3 n4 n5
    evidence '{cuts: $n, slowest_heal_ms: $heal, passed: ($v.present == 0 and $v.acked > 0)}' \
        --argjson n "$n" --argjson heal "$slowest_heal_ms"
}
partitions() { cuts "${1:-20}" carrier silent; }
half_open() { cuts "${1:-10}" silent; }

# Nothing that NODE sent before the moment MS waits for its receipt: messages live a day.
has_receipts() {
    ask "$1" outbox | jq -e --argjson age "$((($(now_ms) - $2) / 1000 + 1))" -s 'all(.[]; .expires_s > 86400 - $age)' >/dev/null
}

# Two and three nodes apart for longer than any pause between two tries, under load both ways.
splits() {
    local n=${1:-20} hold=${2:-60} i how ways=(carrier silent) healed slowest_ms=0
    lay_cables 5 quic tcp
    load --from "$(dir_of n1)" "$(dir_of n5)" --to "$(dir_of n1)" "$(dir_of n5)" --rate 100 --seconds 1000000 --settle 300s
    load_goes_on
    for ((i = 1; i <= n; i++)); do
        how=${ways[i % 2]}
        sever 2 "$how"
        # How long is what is tried out.
        sleep "$hold"
        heal 2 "$how"
        healed=$(now_ms)
        until_so 120 "receipts for all that n1 sent before" has_receipts n1 "$healed"
        until_so 120 "receipts for all that n5 sent before" has_receipts n5 "$healed"
        healed=$(($(now_ms) - healed))
        ((healed <= slowest_ms)) || slowest_ms=$healed
        say "split $i of $n ($how): all delivered after $healed ms"
    done
    load_stop
    compare n1 n2 n3 n4 n5
    evidence '{splits: $n, apart_s: $hold, slowest_delivery_ms: $slowest,
               passed: ($v.present == 0 and $v.acked > 0 and $slowest <= 30000)}' \
        --argjson n "$n" --argjson hold "$hold" --argjson slowest "$slowest_ms"
}

# Links that NODE lost, and tries for one that came to nothing.
count_troubles() {
    ask "$1" stats | jq '.transports | [.links_closed_total[], .link_handshake_failures_total[], .link_dial_failures_total] | add'
}

loss() {
    local seconds=${1:-600} node whole lossy troubles keepalive=15s
    ends=(n1 n2)
    command -v nft >/dev/null || not_measured "nft (nftables) is not installed"
    lay_cables 2 quic
    whole=$(knee 15)
    take_for 600s
    say "without loss $whole messages/s"
    for node in n1 n2; do
        ip netns exec "${space_of[$node]}" nft -f - <<<'table inet loss {
            chain arriving {
                type filter hook input priority 0
                udp dport 7410 numgen random mod 100 < 30 drop
            }
        }' || not_measured "this kernel drops nothing at random"
    done
    troubles=$(($(count_troubles n1) + $(count_troubles n2)))
    lossy=$(knee "$seconds")
    troubles=$(($(count_troubles n1) + $(count_troubles n2) - troubles))
    for node in n1 n2; do ip netns exec "${space_of[$node]}" nft delete table inet loss; done
    take_for 600s
    until_so 60 "what is on its way to arrive" has_sent_all
    compare n1 n2
    evidence '{lossless_per_s: $whole, lossy_per_s: $lossy, seconds: $seconds, links_lost: $troubles,
               passed: ($v.present == 0 and $v.acked > 0 and $lossy >= 0.4 * $whole and $troubles * 60 <= 6 * $seconds)}' \
        --argjson whole "$whole" --argjson lossy "$lossy" --argjson seconds "$seconds" --argjson troubles "$troubles"
}

floods() {
    local kinds=${1:-busy,slow,full,dead,forged,sybil,roots,paths,refuse,withdraw,digests,credit,garbage}
    "$qpc" --json bench relay --seconds 3 --rounds 1 --beside "$kinds" >"$work/relay.json"
    evidence '{floods: $relay[0].beside, peak_rss_mib: $relay[0].ours.peak_rss_mib, passed: ($relay[0].ours.lost == 0 and ([$relay[0].beside[] | .ratio_offered] | min) >= 0.9)}' --slurpfile relay "$work/relay.json"
}

# From where the load of a knee goes to where.
ends=(source sink)

# Messages that the sink has put into its inbox since its start.
arrived() { ask "${ends[1]}" stats | jq '[.. | .messages_received_total? // empty] | add // 0'; }

# knee SECONDS: the most that the line carries, what reaches the sink's inbox a second of a load without
# a rate. Taken out of the inbox it is not: that is one after the other, and another limit.
# What is on its way arrives and is taken, for so long at most.
take_for() {
    load --from "$(dir_of "${ends[0]}")" --to "$(dir_of "${ends[1]}")" --count 1 --settle "$1"
    load_ends
}

knee() {
    local before began
    before=$(arrived)
    began=$(now_ms)
    load --from "$(dir_of "${ends[0]}")" --to "$(dir_of "${ends[1]}")" --seconds "$1" --settle 0s
    load_ends
    echo $((($(arrived) - before) * 1000 / ($(now_ms) - began)))
}

# MiB that a node has resident now.
rss_mib() { awk '/^VmRSS:/ {printf "%.1f", $2 / 1024}' "/proc/${pid_of[$1]}/status"; }

# Slope in MiB a minute of the last half of lines "SECONDS MIB".
slope() {
    awk '{t[NR] = $1 / 60; m[NR] = $2}
         END {for (i = int(NR / 2) + 1; i <= NR; i++) {n++; x += t[i]; y += m[i]; xy += t[i] * m[i]; xx += t[i] * t[i]}
              d = n * xx - x * x; printf "%.3f\n", (n > 1 && d > 0) ? (n * xy - x * y) / d : 0}' "$1"
}

# watch_rss SECONDS NODES…: a line a second and node, with the seconds of this script, while the load runs.
watch_rss() {
    local from=$SECONDS for_s=$1 node
    shift
    while ((SECONDS - from < for_s)) && kill -0 "$load_pid" 2>/dev/null; do
        for node in "$@"; do printf '%s %s\n' $SECONDS "$(rss_mib "$node")" >>"$work/rss.$node"; done
        sleep 1
    done
}

worst_slope() {
    local file
    for file in "$work"/rss.*; do slope "$file"; done | sort -g | tail -n 1
}

# Descriptors and threads of a node.
held_by() { printf '%s %s\n' "$(ls "/proc/${pid_of[$1]}/fd" | wc -l)" "$(ls "/proc/${pid_of[$1]}/task" | wc -l)"; }

# Change from the first half of a file's lines to the second, of each column's mean, the largest: 0.05
# is five percent.
drift() {
    awk '{for (i = 1; i <= NF; i++) v[NR, i] = $i}
         END {half = int(NR / 2)
              for (i = 1; i <= NF; i++) {
                  a = b = 0
                  for (n = 1; n <= half; n++) {a += v[n, i]; b += v[NR - half + n, i]}
                  if (a > 0) {d = (b - a) / a; if (d < 0) d = -d; if (d > most) most = d}}
              printf "%.3f\n", most}' "$1"
}

# Size of a node's store beside that of a copy with nothing in it but its rows, with both in MiB.
store_sizes() {
    local copy="$work/copy.$1"
    ask "$1" backup "$copy" >/dev/null
    jq -nc --arg node "$1" --argjson store "$(stat -c %s "$(dir_of "$1")/store.redb")" \
        --argjson rows "$(stat -c %s "$copy/store.redb")" \
        '{$node, store_mib: ($store / 1048576 * 10 | round / 10), rows_mib: ($rows / 1048576 * 10 | round / 10)}'
    rm -r "$copy"
}

holds_nothing() { [[ -z $(ask "$1" mailboxes) ]]; }

# Twenty peers come and go beside the load; what is sent to one that is away is held by the relay, and
# arrives when it is back or expires.
soak() {
    local minutes=${1:-60} rate visits=0 guest to_guest until sizes i
    line source relay sink
    rate=$(($(knee 15) / 2))
    take_for 600s
    until_so 60 "what is on its way to arrive" has_sent_all
    say "half of what the line carries is $rate messages/s"
    load --from "$(dir_of source)" --to "$(dir_of sink)" --rate "$rate" --seconds $((minutes * 60)) --settle 300s
    until=$((SECONDS + minutes * 60))
    while ((SECONDS < until)); do
        guest=guest$((visits % 20))
        visits=$((visits + 1))
        peers_of[$guest]=$(url relay quic)
        start "$guest"
        # Asked while it is there; the source learns of it by its announce or by asking.
        to_guest=$(address_of "$guest")
        watch_rss 10 source relay sink
        if ((visits % 2)); then kill_hard "$guest"; else ask "$guest" drain >/dev/null; wait "${pid_of[$guest]}" || true; fi
        for node in source relay sink; do held_by "$node" >>"$work/held.$node"; done
        for ((i = 0; i < 20; i++)); do ask source send --to "$to_guest" --ttl 300s "visit $visits, $i" >/dev/null || true; done
        watch_rss 2 source relay sink
    done
    load_ends
    compare source relay sink
    until_so 400 "what was for guests to expire" has_sent_all
    until_so 400 "what was held for guests to expire" holds_nothing relay
    sizes=$(for node in source relay sink; do store_sizes "$node"; done | jq -sc .)
    evidence '{rate: $rate, minutes: $minutes, visits: $visits, rss_slope_mib_per_min: $slope, held_drift: $drift,
               stores: $sizes, load: $load[0],
               passed: ($v.present == 0 and $slope < 1 and $drift <= 0.05)}' --argjson rate "$rate" --argjson minutes "$minutes" \
        --argjson visits "$visits" --argjson slope "$(worst_slope)" --argjson sizes "$sizes" \
        --argjson drift "$(for node in source relay sink; do drift "$work/held.$node"; done | sort -g | tail -n 1)" \
        --slurpfile load "$work/load.json"
}

has_sent_all() { [[ -z $(ask "${ends[0]}" outbox) ]]; }

overload() {
    local seconds=${1:-120} knee_s control=() began recovered
    line source relay sink
    # No longer than the overload itself, for a short look.
    knee_s=$(knee $((seconds < 15 ? seconds : 15)))
    say "the line carries $knee_s messages/s; ten times that for $seconds s"
    load --from "$(dir_of source)" --to "$(dir_of sink)" --rate $((knee_s * 10)) --window 1024 --seconds "$seconds" --settle 0s
    while kill -0 "$load_pid" 2>/dev/null; do
        began=$(now_ms)
        # A command that is refused says so at once, which is an answer too.
        ask relay status >/dev/null 2>&1 || true
        control+=($(($(now_ms) - began)))
        sleep 0.2
    done
    load_ends
    cp "$work/load.json" "$work/over.json"
    printf '%s\n' "${control[@]}" | sort -n >"$work/control"
    # What was not taken was refused by name, and something was; nothing is unknown. Back to nine tenths
    # within ten seconds: what arrives in the ten seconds after those, of what the line still has and of what is
    # new.
    take_for 10s
    recovered=$(knee 10)
    take_for 600s
    until_so 60 "what is on its way to arrive" has_sent_all
    compare source relay sink
    evidence '{knee_per_s: $knee, recovered_per_s: $recovered, control_p99_ms: $p99, over: $over[0],
               passed: ($recovered >= 0.9 * $knee and $p99 <= 500 and $over[0].unknown == 0
                        and ([$over[0].refused[]] | add // 0) > 0 and $v.unobserved == 0)}' \
        --argjson knee "$knee_s" --argjson recovered "$recovered" --slurpfile over "$work/over.json" \
        --argjson p99 "$(awk '{v[NR] = $1} END {print v[int(NR * 0.99) + (NR * 0.99 > int(NR * 0.99))]}' "$work/control")"
}

steady() {
    local seconds=${1:-300} rate=${2:-2000}
    line source sink
    log_in_memory
    disk 5
    load --from "$(dir_of source)" --to "$(dir_of sink)" --rate "$rate" --seconds "$seconds" --settle 300s
    watch_rss "$seconds" source sink
    load_ends
    compare source sink
    evidence '{rate: $rate, rss_slope_mib_per_min: $slope, load: $load[0],
               passed: ($slope < 1 and $rss <= 262144 and $load[0].rate_per_s >= 0.95 * $rate
                        and $load[0].ack_p99_ms <= 2 * $d.sync_p99_ms + 10)}' \
        --argjson rate "$rate" --argjson slope "$(worst_slope)" --slurpfile load "$work/load.json"
}

# What is started again, and what ends the process. Their number and that of the nodes have no common
# divisor, so in time every node loses every part.
parts=(delivery transport/link/reader store transport router transport/dialler rate_limiter transport/link
    root maintenance transport/listener http storage transport/links health "store watch" transport/link/writer)
ends_the_process() { [[ $1 == root || $1 == storage || $1 == "store watch" ]]; }

count_panics() { grep -c "a test wanted this panic" "$work/$1.log" || true; }
has_panicked() { (($(count_panics "$1") > $2)); }
has_ended() { ! kill -0 "${pid_of[$1]}" 2>/dev/null; }

panics() {
    local seconds=${1:-300} nodes=(source relay sink) node part turn before began code ends=0 wrong=0 told=0 heard=0
    for node in "${nodes[@]}"; do mkfifo "$work/$node.panics"; done
    line "${nodes[@]}"
    load --from "$(dir_of source)" --to "$(dir_of sink)" --rate 200 --window 16 --seconds 1000000 --settle 300s
    load_goes_on
    began=$(now_ms)
    for ((turn = 0; turn < seconds; turn++)); do
        until (($(now_ms) - began >= turn * 1000)); do sleep 0.02; done
        node=${nodes[turn % 3]}
        part=${parts[turn % ${#parts[@]}]}
        # The first of the line dials nobody.
        [[ $node == source && $part == transport/dialler ]] && continue
        before=$(count_panics "$node")
        told=$((told + 1))
        printf '%s\n' "$part" 1<>"$work/$node.panics"
        if ends_the_process "$part"; then
            until_so 60 "$node to end without its $part" has_ended "$node"
            code=0
            wait "${pid_of[$node]}" || code=$?
            ((code != 0)) || { say "$node ended with exit 0 without its $part"; wrong=$((wrong + 1)); }
            ends=$((ends + 1))
            start "$node"
        elif has_ended "$node"; then
            die "$node ended when its $part panicked: $(tail -n 3 "$work/$node.log")"
        fi
        ! has_panicked "$node" "$before" || heard=$((heard + 1))
        ((turn > 0 || heard > 0)) || until_so 10 "a panic; is $qpc built with --features testing?" has_panicked "$node" "$before"
        ((turn % 50)) || say "$turn seconds"
    done
    # Whatever fell last is there again, and messages move.
    load_goes_on 20000
    for node in "${nodes[@]}"; do ! has_ended "$node" || die "$node ended: $(tail -n 3 "$work/$node.log")"; done
    load_stop
    compare "${nodes[@]}"
    evidence '{panics_told: $told, panics: $heard, processes_ended: $ends, wrong: $wrong,
               passed: ($wrong == 0 and $v.present == 0 and $v.acked > 0 and $heard >= 0.9 * $told)}' \
        --argjson told "$told" --argjson ends "$ends" --argjson wrong "$wrong" \
        --argjson heard "$(cat "$work"/*.log | grep -c "a test wanted this panic" || true)"
}
# shellcheck source=campaign/machine.sh
source scripts/campaign/machine.sh

# --- One of them, or all -----------------------------------------------------------------------

name=${1:-}
[[ -n $name ]] || { sed -n '2,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }
shift
command -v jq >/dev/null || not_measured "jq is not installed"

if [[ $name == all ]]; then
    worst=0
    for one in kills eio recovery first-start disk-faults damage removals power-cuts clocks descriptors slow-handshakes silent-links memory \
        partitions half-open splits loss floods steady overload soak panics; do
        code=0
        "scripts/campaign.sh" $one || code=$?
        ((code <= worst)) || worst=$code
    done
    exit $worst
fi

case $name in
kills | eio | partitions | half-open | splits | loss | floods | soak | overload | steady | panics) ;;
recovery | first-start | disk-faults | damage | removals | power-cuts | clocks | descriptors | slow-handshakes | silent-links | memory) ;;
*) printf 'campaign.sh: no campaign is called %s\n' "$name" >&2; exit 2 ;;
esac
qpc=${QPC:-target/release/qpc}
if [[ -z ${QPC:-} ]]; then
    say "building"
    if [[ $name == panics ]]; then
        qpc=target/debug/qpc
        cargo build --locked --features testing --bin qpc --quiet
    else
        cargo build --locked --release --bin qpc --quiet
    fi
fi
qpc=$(cd "$(dirname "$qpc")" && pwd)/$(basename "$qpc")
commit=$(git rev-parse --short HEAD 2>/dev/null || printf unknown)
[[ -z $(git status --porcelain --untracked-files=no 2>/dev/null) ]] || commit+="+changes"
work=$(mktemp -d "${TMPDIR:-/tmp}/qpc-$name.XXXXXX")
keep=0
clean_up() {
    local code=$? space
    [[ -z $load_pid ]] || kill -9 "$load_pid" 2>/dev/null || true
    stop_all
    [[ -z $group ]] || rmdir "$group" 2>/dev/null || true
    for space in "${spaces[@]}"; do ip netns del "$space" 2>/dev/null || true; done
    if [[ -n $memory_log ]]; then
        if ((code == 1)); then cp --remove-destination "$memory_log" "$work/load.jsonl"; fi
        rm -f "$memory_log"
    fi
    if ((code == 1)); then say "kept: $work"; else rm -rf "$work"; fi
}
trap clean_up EXIT
trap 'exit 130' INT TERM
began_ms=$(now_ms)
"${name//-/_}" "$@"
