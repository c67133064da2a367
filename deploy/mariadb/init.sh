#!/bin/bash
# What a database server needs once, on an empty volume. The image runs this
# while the server listens on its socket only. A primary gets its users, which
# its binary log takes to the replica; a replica is told whom to follow, and does
# so from its proper start on.
#
# In a subshell, since an image may source it instead of running it.
(
	set -euo pipefail
	sql() { MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb --protocol=socket --user=root; }
	if [ -z "${SQL_PRIMARY:-}" ]; then
		# No replica can acknowledge yet what is written here; the setting is back
		# with the proper start.
		sql <<-SQL
			SET GLOBAL rpl_semi_sync_master_enabled=0;
			CREATE DATABASE sluice;
			CREATE USER sluice@'%' IDENTIFIED BY '$SQL_PASSWORD';
			GRANT ALL ON sluice.* TO sluice@'%';
			CREATE USER replicator@'%' IDENTIFIED BY '$SQL_REPLICATION_PASSWORD';
			GRANT REPLICATION SLAVE ON *.* TO replicator@'%';
		SQL
	else
		sql <<-SQL
			CHANGE MASTER TO MASTER_HOST='${SQL_PRIMARY%:*}', MASTER_PORT=${SQL_PRIMARY##*:},
				MASTER_USER='replicator', MASTER_PASSWORD='$SQL_REPLICATION_PASSWORD',
				MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos;
		SQL
	fi
)
