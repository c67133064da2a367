#!/bin/sh
# Makes a cluster of the nodes given as host:port, the first half of them
# primaries with a replica each. Nodes that are one already stay as they are, so
# this may run at every start.
set -eu
ask() { # host:port and a command
	at=${1%@*}
	shift
	redis-cli -h "${at%:*}" -p "${at##*:}" "$@"
}
# They know each other's addresses, or this is their first start.
if [ "$(ask "$1" CLUSTER INFO | sed -n 's/^cluster_known_nodes:\([0-9]*\).*/\1/p')" -gt 1 ]; then
	echo "there is a cluster already"
else
	redis-cli --cluster create "$@" --cluster-replicas 1 --cluster-yes
fi
for node in "$@"; do
	tries=0
	until ask "$node" CLUSTER INFO | grep -q '^cluster_state:ok'; do
		tries=$((tries + 1))
		[ "$tries" -lt 60 ] || { echo "$node does not find the cluster whole" >&2; exit 1; }
		sleep 0.5
	done
done
