#!/usr/bin/env bash
# What a new person does in the first quarter of an hour, in a clean directory, with a real binary:
# from `qpc` without arguments over an empty mesh and wrong words to a message that arrived. Writes
# commands and output as they were into a page. By hand, before a release:
#
#   scripts/new-user-walk.sh [target/release/qpc] [docs/new-user-walk.md]
#
# Nothing here is compared: it is read. What is compared is in tests/docs_commands/.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

qpc=$(readlink -f "${1:-target/release/qpc}")
page=$(readlink -f "${2:-docs/new-user-walk.md}")
[[ -x $qpc ]] || { echo "new-user-walk.sh: there is no $qpc; run: cargo build --release" >&2; exit 1; }

# A network of its own where the system allows it, so that ports and neighbours are nobody else's.
if [[ -z ${WALK_ALONE:-} ]] && unshare --user --map-root-user --net true 2>/dev/null; then
    WALK_ALONE=yes exec unshare --user --map-root-user --net "$0" "$qpc" "$page"
fi
[[ -n ${WALK_ALONE:-} ]] && PATH=$PATH:/usr/sbin:/sbin ip link set lo up

work=$(mktemp -d /tmp/qpc-walk-XXXXXX)
out=$work/page.md
mkdir "$work/bin" "$work/mesh"
ln -s "$qpc" "$work/bin/qpc"
version=$("$qpc" --version)
for name in $(compgen -e | grep -E '^(QPC|XDG)_'); do unset "$name"; done
export HOME=$work/mesh PATH=$work/bin:$PATH COLUMNS=100
cd "$work/mesh" || exit 1
trap 'stop_all; rm -rf "$work"' EXIT

# The machine's directory is nobody's business.
shown() { sed -e "s#$work/mesh#/tmp/mesh#g"; }
say() { printf '\n%s\n' "$*" >>"$out"; }
begin() { printf '\n```text\n' >>"$out"; }
end() { printf '```\n' >>"$out"; }

# Types a command and shows what it says and how it ended.
types() {
    printf '$ %s\n' "$1" >>"$out"
    local said code=0
    said=$(eval "$1" 2>&1 </dev/null) || code=$?
    [[ -z $said ]] || printf '%s\n' "$said" | shown >>"$out"
    ((code == 0)) || printf '(exit %d)\n' "$code" >>"$out"
}

# Starts a node in the background; waits until it answers, and shows what it has said by then.
nodes=()
starts() {
    local dir=$1
    shift
    printf '$ %s &\n' "qpc --data-dir $dir run $*" >>"$out"
    qpc --data-dir "$dir" run "$@" >"$work/$dir.log" 2>&1 &
    nodes+=($!)
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        qpc --data-dir "$dir" status >/dev/null 2>&1 && break
        kill -0 $! 2>/dev/null || break
        sleep 0.05
    done
    shown <"$work/$dir.log" >>"$out"
}

stop_all() {
    local pid
    for pid in "${nodes[@]}"; do kill "$pid" 2>/dev/null; done
    wait
}

address() { qpc --data-dir "$1" status --json | sed -e 's/.*"address":"\([0-9a-f]*\)".*/\1/'; }

cat >"$out" <<PAGE
# A new user's first quarter of an hour

What the program said, as it was: written by \`scripts/new-user-walk.sh\`, read by people, run again by hand before a release. $version. \`(exit N)\` is the exit code where it is not 0.
PAGE

say '## Nothing yet'
begin
types 'qpc'
types 'qpc status'
types 'qpc sned --to anna hello'
types 'qpc send hello'
end

say '## A node alone'
begin
starts anna --listen tcp://127.0.0.1:7420 --health-listen off
types 'qpc --data-dir anna status'
types 'qpc --data-dir anna peers'
types 'qpc --data-dir anna routes'
types 'qpc --data-dir anna known'
types 'qpc --data-dir anna recv'
end

say '## Wrong words'
begin
types 'qpc --data-dir anna send --to bert hello'
types 'qpc --data-dir anna send --to 0123456789abcdef0123456789abcdeg hello'
types 'qpc --data-dir anna send --to 01234567 hello'
types 'qpc --data-dir anna contact add cafe 0123456789abcdef0123456789abcdef'
types 'qpc --data-dir anna send --to 0123456789abcdef0123456789abcdef --ttl 90 hello'
types 'qpc --data-dir anna peer add bert.example'
types 'qpc --data-dir anna run'
types 'qpc --data-dir other run --listen tcp://127.0.0.1:7420 --health-listen off'
types 'qpc --data-dir anna send --to 0123456789abcdef0123456789abcdef --file /no/such/file'
end

say '## An address that nobody has'
begin
types 'qpc --data-dir anna send --to 0123456789abcdef0123456789abcdef --wait 2s hello'
types 'qpc --data-dir anna outbox'
types 'qpc --data-dir anna path request 0123456789abcdef0123456789abcdef'
types 'qpc --data-dir anna ping 0123456789abcdef0123456789abcdef --count 1'
types 'qpc --data-dir anna trace 0123456789abcdef0123456789abcdef --timeout 2s'
end

say '## A second node, and a first message'
begin
starts bert --listen tcp://127.0.0.1:7430 --health-listen off --peer "tcp://127.0.0.1:7420#$(address anna)"
types 'qpc --data-dir bert peers'
types "qpc --data-dir anna contact add bert $(address bert)"
types 'qpc --data-dir anna send --to bert --wait 30s "Hello, Bert"'
types 'qpc --data-dir bert recv'
types 'qpc --data-dir bert recv'
types 'qpc --data-dir anna trace bert'
types 'qpc --data-dir anna ping bert --count 2'
types 'qpc --data-dir anna broadcast "Lunch is ready"'
types 'qpc --data-dir bert recv --count 1 --timeout 10s'
end

say '## Somebody else at that place'
begin
starts carl --listen tcp://127.0.0.1:7440 --health-listen off --peer 'tcp://127.0.0.1:7420#0123456789abcdef0123456789abcdef'
types 'sleep 2; qpc --data-dir carl status'
end

say '## Stopping'
begin
types 'qpc --data-dir anna drain'
types 'qpc --data-dir bert drain'
types 'qpc --data-dir bert status'
end

cp "$out" "$page"
echo "wrote $page"
