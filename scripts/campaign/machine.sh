# Errors of the machine, in full: sourced by campaign.sh. The test run has a small form of each
# (tests/machine_errors.rs, tests/restart_processes.rs, tests/storage_damage.rs, tests/storage_crash.rs).

nowhere=0123456789abcdef0123456789abcdef

# System calls that change a directory or a file.
changes=openat,write,pwrite64,fsync,fdatasync,ftruncate,rename,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,fchmod,chmod

needs_strace() {
    command -v strace >/dev/null || not_measured "strace is not installed"
    strace -qq -o /dev/null true 2>/dev/null || not_measured "strace may trace nothing here"
}

is_up() { kill -0 "${pid_of[$1]}" 2>/dev/null; }
panics_in() { grep -c "panicked at" "$work/$1.log" 2>/dev/null || true; }
files_of() { find "/proc/${pid_of[$1]}/fd" -mindepth 1 2>/dev/null | wc -l; }

# Milliseconds of the processor that a node has used.
cpu_ms() { sed 's/.*) //' "/proc/${pid_of[$1]}/stat" | awk -v hz="$(getconf CLK_TCK)" '{print int(($12 + $13) * 1000 / hz)}'; }

# Kills of nodes that have not come up yet, load going on between them.
recovery() {
    local n=${1:-100} i victim nodes=(source relay sink)
    line "${nodes[@]}"
    load --from "$(dir_of source)" --to "$(dir_of sink)" --rate 200 --window 16 --seconds 1000000 --settle 300s
    load_goes_on
    for ((i = 1; i <= n; i++)); do
        victim=${nodes[RANDOM % 3]}
        ! is_up "$victim" || kill_hard "$victim"
        launch "$victim"
        # The moment is what is tried out.
        sleep "0.$(printf %03d $((RANDOM % 500)))"
        kill_hard "$victim"
        # Every few kills it gets through, so that there is something new to recover.
        ((i % 3)) && continue
        for victim in "${nodes[@]}"; do is_up "$victim" || start "$victim"; done
        load_goes_on 4000
        ((i % 30)) || say "$i kills, slowest start $slowest_ready_ms ms"
    done
    for victim in "${nodes[@]}"; do is_up "$victim" || start "$victim"; done
    load_goes_on
    load_stop
    compare "${nodes[@]}"
    evidence '{kills_while_starting: $n, panics: $panics, passed: ($v.present == 0 and $v.acked > 0 and $panics == 0)}' \
        --argjson n "$n" --argjson panics "$(cat "$work"/*.log | grep -c "panicked at" || true)"
}

# A first start killed at every call that changes a file, until it gets through.
first_start() {
    needs_strace
    local n killed=0 wrong=0 before dir tracer bad
    dir=$(dir_of node)
    for ((n = 1; n <= 5000; n++)); do
        rm -rf "$dir"
        url_of=()
        : >"$work/node.out"
        # In a shell of its own, which says that it was killed where the node does.
        { strace -f -qq -o /dev/null -e trace=$changes -e inject=$changes:signal=KILL:when=$n \
            "$qpc" --json --data-dir "$dir" run --listen tcp://127.0.0.1:0 --health-listen off || true; } \
            >"$work/node.out" 2>>"$work/node.log" &
        tracer=$!
        until grep -q '"event":"ready"' "$work/node.out" || ! kill -0 $tracer 2>/dev/null; do sleep 0.01; done
        if grep -q '"event":"ready"' "$work/node.out"; then
            kill -9 "$(jq -r .pid "$work/node.out")" 2>/dev/null || true
            wait $tracer 2>/dev/null || true
            break
        fi
        wait $tracer 2>/dev/null || true
        killed=$n
        before=""
        if [[ -d $dir ]]; then
            # What is being written has another name; an empty lock says that nobody holds it.
            bad=$(find "$dir" \( -type f -perm /177 \) -o \( -type d -perm /077 \) -o \
                \( -type f -size 0 ! -name lock ! -name '.*' ! -name '*.tmp' ! -name '*.new' \))
            [[ -z $bad ]] || { say "n = $n: $bad"; wrong=$((wrong + 1)); }
            [[ ! -e $dir/identity.pem ]] || before=$(sha256sum <"$dir/identity.pem")
        fi
        start node
        [[ -z $before || $before == "$(sha256sum <"$dir/identity.pem")" ]] || { say "n = $n: another identity"; wrong=$((wrong + 1)); }
        ask node send --to $nowhere works >/dev/null || { say "n = $n: takes no message"; wrong=$((wrong + 1)); }
        kill_hard node
        ((n % 50)) || say "killed at $n calls"
    done
    evidence '{calls: $n, wrong: $wrong, panics: $panics, passed: ($wrong == 0 and $panics == 0 and $n > 20)}' \
        --argjson n "$killed" --argjson wrong "$wrong" --argjson panics "$(panics_in node)"
}

# Each call on a file of the data directory fails once: in a first start and while messages are taken.
disk_faults() {
    needs_strace
    local most=${1:-200} call error n tries=0 wrong=0 ended=0 dir tracer paths=() path code
    dir=$(dir_of node)
    for path in store.redb store.redb.tmp row-keys row-keys.tmp lock identity.pem config.toml config.toml.new config.toml.new.tmp blobs/outgoing blobs/incoming; do
        paths+=(-P "$dir/$path")
    done
    paths+=(-P "$dir" -P "$work")
    for call in pwrite64 write openat rename ftruncate fsync fdatasync unlink link,linkat mkdir; do
        for error in EIO ENOSPC EMFILE; do
            [[ $error != EMFILE || $call == openat ]] || continue
            for ((n = 1; n <= most; n++)); do
                rm -rf "$dir" "$work/load.jsonl"
                url_of=()
                : >"$work/node.out"
                : >"$work/trace"
                strace -f -qq -o "$work/trace" "${paths[@]}" -e trace="$call" -e inject="$call:error=$error:when=$n" \
                    "$qpc" --json --data-dir "$dir" run --listen tcp://127.0.0.1:0 --health-listen off \
                    >"$work/node.out" 2>>"$work/node.log" &
                tracer=$!
                until grep -q '"event":"ready"' "$work/node.out" || ! kill -0 $tracer 2>/dev/null; do sleep 0.01; done
                if grep -q '"event":"ready"' "$work/node.out"; then
                    pid_of[node]=$(jq -r .pid "$work/node.out")
                    load --from "$dir" --to $nowhere --count 100 --window 4 --settle 0s
                    while kill -0 "$load_pid" 2>/dev/null && is_up node; do sleep 0.02; done
                    is_up node || kill -INT "$load_pid" 2>/dev/null || true
                    load_ends
                    kill -9 "${pid_of[node]}" 2>/dev/null || true
                fi
                code=0
                wait $tracer 2>/dev/null || code=$?
                # None was left to fail: the next call, or the next error.
                grep -q INJECTED "$work/trace" || break
                tries=$((tries + 1))
                ((code == 0 || code == 137)) || ended=$((ended + 1))
                ((code != 0)) || { say "$call $n $error: exit 0 by itself"; wrong=$((wrong + 1)); }
                start node
                if [[ -s $work/load.jsonl ]]; then
                    compare node
                    [[ $(jq '.lost + .unobserved + .duplicate + .phantom' "$work/verify.json") == 0 ]] ||
                        { say "$call $n $error: $(jq -c . "$work/verify.json")"; wrong=$((wrong + 1)); }
                fi
                kill_hard node
            done
            say "$call, $error: $((n - 1)) calls"
        done
    done
    echo '{}' >"$work/verify.json"
    evidence '{faults: $tries, ended_the_node: $gone, wrong: $wrong, panics: $panics, passed: ($wrong == 0 and $panics == 0 and $tries > 50)}' \
        --argjson tries "$tries" --argjson gone "$ended" --argjson wrong "$wrong" --argjson panics "$(panics_in node)"
}

# Every length of the tails of a store's files, and some thousand bytes and sectors of them altered.
damage() {
    QPC_DAMAGE=all QPC_SEED=$seed cargo test --locked --quiet --test storage_damage -- --nocapture >"$work/damage.out" 2>"$work/damage.err" ||
        { keep=1; die "damage: $(grep -m 1 panicked -A 2 "$work/damage.err")"; }
    jq -R -s '[split("\n")[] | capture("(?<file>[^\n,]+), (?<state>\\w+), (?<bytes>\\d+) bytes: Tally \\{ refused: (?<refused>\\d+), whole: (?<whole>\\d+), older: (?<older>\\d+), set_aside: (?<set_aside>\\d+)")
        | with_entries(if .key == "file" or .key == "state" then . else .value |= tonumber end)]' "$work/damage.out" >"$work/damage.json"
    evidence '{files: $files[0], passed: ($files[0] | length == 4)}' --slurpfile files "$work/damage.json"
}

# Kills of a store that removes and expires by the hundred.
removals() {
    local n=${1:-100}
    QPC_KILLS=$n QPC_SEED=$seed cargo test --locked --quiet --test storage_crash kills_amid -- --nocapture >"$work/removals.out" 2>"$work/removals.err" ||
        { keep=1; die "removals: $(grep -m 1 panicked -A 2 "$work/removals.err")"; }
    evidence '{kills: $n, passed: true}' --argjson n "$n"
}

# The power goes in the middle of a commit, each sector of which may be on the disk or not.
power_cuts() {
    local n=${1:-1000}
    QPC_CUTS=$n QPC_SEED=$seed cargo test --locked --quiet --test storage_crash power_cut -- --nocapture >"$work/cuts.out" 2>"$work/cuts.err" ||
        { keep=1; die "power-cuts: $(grep -m 1 panicked -A 2 "$work/cuts.err")"; }
    jq -R -s 'capture("cuts (?<cuts>\\d+), acked (?<acked>\\d+), batches gone (?<gone>\\d+)") | map_values(tonumber)' "$work/cuts.out" >"$work/cuts.json"
    jq '{events: {}, sent: .acked, acked: .acked, delivered: .acked, lost: 0, duplicate: 0, phantom: 0, gap: 0}' "$work/cuts.json" >"$work/verify.json"
    evidence '{cuts: $cuts[0], passed: ($cuts[0].cuts >= $n)}' --argjson n "$n" --slurpfile cuts "$work/cuts.json"
}

# Nodes whose wall clocks are set to anything, while they run and while they are down.
clocks() {
    cargo test --locked --quiet --test clock_processes -- --nocapture >"$work/clocks.out" 2>"$work/clocks.err" ||
        { keep=1; die "clocks: $(grep -m 1 panicked -A 2 "$work/clocks.err")"; }
    ! grep -q "^not measured" "$work/clocks.out" || not_measured "$(grep -m 1 "^not measured" "$work/clocks.out")"
    jq -R -s '[split("\n")[] | select(startswith("jump ")) | ltrimstr("jump ")]' "$work/clocks.out" >"$work/jumps.json"
    evidence '{jumps: $jumps[0], passed: ($jumps[0] | length > 0)}' --slurpfile jumps "$work/jumps.json"
}

# 64 descriptors, 200 strangers who say nothing, for S seconds.
descriptors() {
    local seconds=${1:-30} port fd fds=() before during=0 after cpu wall i
    peers_of=()
    start peer
    peers_of[node]=$(url peer tcp)
    command -v prlimit >/dev/null || not_measured "prlimit (util-linux) is not installed"
    open_files=64 start node
    until_so 60 "a route" knows node peer
    before=$(files_of node)
    port=$(url node tcp)
    port=${port##*:}
    cpu=$(cpu_ms node)
    wall=$(now_ms)
    while (($(now_ms) - wall < seconds * 1000)); do
        # All of them come again and again.
        for fd in "${fds[@]}"; do exec {fd}>&-; done
        fds=()
        for ((i = 0; i < 200; i++)); do
            { exec {fd}<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || break
            fds+=("$fd")
        done
        ask node send --to "$(address_of peer)" --wait 10s "amid strangers" >/dev/null && during=$((during + 1))
        sleep 0.5
    done
    cpu=$(($(cpu_ms node) - cpu))
    wall=$(($(now_ms) - wall))
    for fd in "${fds[@]}"; do exec {fd}>&-; done
    until_so 60 "the descriptors to be free" eval '(($(files_of node) <= '"$before"'))'
    after=$(files_of node)
    # Whoever comes now is let in.
    peers_of[guest]=$(url node tcp)
    start guest
    until_so 60 "a newcomer's link" has_links guest 1
    evidence '{open_files: 64, strangers: 200, delivered_meanwhile: $during, cpu_share: ($cpu / $wall * 1000 | round / 1000),
               files_before: $before, files_after: $after, panics: $panics,
               passed: ($during > 0 and $cpu <= 0.2 * $wall and $panics == 0)}' \
        --argjson during "$during" --argjson cpu "$cpu" --argjson wall "$wall" --argjson before "$before" \
        --argjson after "$after" --argjson panics "$(panics_in node)"
}

# Connections over TCP that never finish their handshake, a byte in ten seconds each.
slow_handshakes() {
    local n=${1:-1000} seconds=${2:-60} port fd fds=() rss rss_after took times=() began until i
    (($(ulimit -Hn) >= n + 200)) || not_measured "the shell may not open $n files (ulimit -Hn)"
    ulimit -n $((n + 200))
    # Writing to one that was turned away is part of it.
    trap '' PIPE
    start node
    port=$(url node tcp)
    port=${port##*:}
    rss=$(rss_mib node)
    peers_of[guest]=$(url node tcp)
    until=$((SECONDS + seconds))
    while ((SECONDS < until)); do
        for fd in "${fds[@]}"; do { printf '\x16' >&"$fd"; } 2>/dev/null || true; done
        for ((i = ${#fds[@]}; i < n; i++)); do
            { exec {fd}<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || break
            fds+=("$fd")
        done
        for i in 1 2 3 4 5; do
            url_of[guest]="tcp://127.0.0.1:0"
            start guest
            began=$(now_ms)
            until has_links guest 1; do sleep 0.01; (($(now_ms) - began < 30000)) || break; done
            took=$(($(now_ms) - began))
            times+=("$took")
            kill_hard guest
        done
    done
    rss_after=$(rss_mib node)
    for fd in "${fds[@]}"; do exec {fd}>&-; done
    evidence '{connections: $n, honest_connects: ($times | length), honest_max_ms: ($times | max),
               rss_mib_before: $before, rss_mib_after: $after,
               passed: (($times | max) <= 1000 and $after - $before <= 64)}' \
        --argjson n "$n" --argjson times "$(printf '%s\n' "${times[@]}" | jq -s .)" \
        --argjson before "$rss" --argjson after "$rss_after"
}

# N links over TCP and N over QUIC whose other ends fall silent without a sign: stopped, their kernel goes
# on acknowledging. All they hold is free again within the idle timeout.
silent_links() {
    local n=${1:-200} scheme before linked until freed_ms
    # What a node does that nobody configured.
    keepalive=15s start node
    before=$(files_of node)
    for scheme in tcp quic; do
        mkfifo "$work/$scheme.in"
        "$qpc" bench clients --connect "$(url node $scheme)" --links "$n" <"$work/$scheme.in" >"$work/$scheme.clients" 2>>"$work/clients.err" &
        pid_of[$scheme-clients]=$!
        exec {until}>"$work/$scheme.in"
    done
    until_so 120 "all links to be up" has_links node $((2 * n))
    linked=$(files_of node)
    kill -STOP "${pid_of[tcp-clients]}" "${pid_of[quic-clients]}"
    until=$(now_ms)
    until_so 90 "the links to be given up" has_links node 0
    until_so 30 "the descriptors to be free" eval '(($(files_of node) <= '$((before + 2))'))'
    freed_ms=$(($(now_ms) - until))
    kill -CONT "${pid_of[tcp-clients]}" "${pid_of[quic-clients]}"
    evidence '{links: $n, files_before: $before, files_linked: $linked, freed_ms: $freed, panics: $panics,
               passed: ($freed <= 60000 and $panics == 0)}' --argjson n $((2 * n)) --argjson before "$before" \
        --argjson linked "$linked" --argjson freed "$freed_ms" --argjson panics "$(panics_in node)"
}

# A control group with so much memory, of whichever version this system has; its path is left in $group.
group=""
make_group() {
    local bytes=$1 base=/sys/fs/cgroup
    ((EUID == 0)) || not_measured "control groups need root"
    if [[ -e $base/cgroup.controllers ]]; then
        grep -qw memory $base/cgroup.controllers || not_measured "this system has no control group for memory"
        echo +memory >$base/cgroup.subtree_control 2>/dev/null || true
        group=$base/qpc-$$
        mkdir "$group" 2>/dev/null && echo "$bytes" >"$group/memory.max" 2>/dev/null || not_measured "control groups cannot be made here"
        echo 0 >"$group/memory.swap.max" 2>/dev/null || true
    else
        group=$base/memory/qpc-$$
        mkdir "$group" 2>/dev/null && echo "$bytes" >"$group/memory.limit_in_bytes" 2>/dev/null || not_measured "control groups cannot be made here"
    fi
}
group_peak_mib() { awk '{printf "%.1f", $1 / 1048576}' "$group/memory.peak" 2>/dev/null || awk '{printf "%.1f", $1 / 1048576}' "$group/memory.max_usage_in_bytes"; }

# A relay of so many MiB that keeps for one who is away, under all that its neighbour can send.
memory() {
    local mib=${1:-128} seconds=${2:-120} killed=0
    make_group $((mib * 1024 * 1024))
    group_of[relay]=$group
    line source relay sink
    load --from "$(dir_of source)" --to "$(dir_of sink)" --payload 4000 --window 128 --seconds "$seconds" --settle 0s
    load_goes_on
    # Half of the time it passes on what comes, then it keeps it.
    sleep $((seconds / 2))
    kill_hard sink
    while kill -0 "$load_pid" 2>/dev/null; do
        if ! is_up relay; then
            killed=$((killed + 1))
            start relay
        fi
        sleep 0.2
    done
    load_ends
    cp "$work/load.json" "$work/flood.json"
    start sink
    # More than the sink's inbox has room for.
    take_for 600s
    until_so 60 "what is on its way to arrive" has_sent_all
    compare source relay sink
    evidence '{memory_mib: $mib, group_peak_mib: $peak, relay_killed: $killed, refused_by_reason: $flood[0].refused,
               passed: ($v.acked > 0 and $v.unobserved == 0)}' \
        --argjson mib "$mib" --argjson peak "$(group_peak_mib)" --argjson killed "$killed" \
        --slurpfile flood "$work/flood.json"
}
