package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// What a server's configuration says of its role. With the last line of the
// replica's, a server that starts after a crash takes back what it had written to
// its binary log and no replica had acknowledged: right for one that rejoins,
// wrong for one that goes on as primary, whose replica may have it after all.
const (
	primaryRole = "rpl-semi-sync-master-enabled=1\n"
	replicaRole = "rpl-semi-sync-slave-enabled=1\nread-only=1\ninit-rpl-role=SLAVE\n"
)

// semiSync: a commit is answered after the replica has it in its relay log.
// After a second without the replica, the primary goes on alone until it is
// back; a test that wants it to wait for ever raises the timeout. The replica
// applies side by side: one after the other, each with two syncs, is slower than
// the primary, which syncs them in groups, and it would fall behind for good.
var semiSync = []Option{
	Config("rpl-semi-sync-master-wait-point=AFTER_SYNC"),
	Config("rpl-semi-sync-master-timeout=1000"),
	Config("slave-parallel-threads=4"),
}

// DatabasePair is a primary and a replica with global transaction ids, in
// strict mode, and semi-synchronous acknowledgement. The replica is read-only
// for the ordinary user. The fields change places with Promote; neither is for
// several goroutines at once.
type DatabasePair struct {
	Primary, Replica *Database
}

// MariaDBPair starts a pair and waits until the replica has caught up and
// acknowledges commits.
func MariaDBPair(t TB, opts ...Option) *DatabasePair {
	t.Helper()
	opts = append(semiSync[:len(semiSync):len(semiSync)], opts...)
	p := &DatabasePair{Primary: mariadb(t, 1, primaryRole, opts), Replica: mariadb(t, 2, replicaRole, opts)}
	if err := p.attach(context.Background()); err != nil {
		t.Fatalf("servers: %v", err)
	}
	return p
}

// Promote makes the replica the primary, after it has applied all that it was
// sent, and leaves the old one as it is: killed, or a second primary. Stores on
// it learn that a new term has begun, as docs/OPERATIONS.md says.
func (p *DatabasePair) Promote(ctx context.Context) error {
	r := p.Replica
	if err := r.Exec(ctx, "STOP SLAVE IO_THREAD"); err != nil {
		return err
	}
	status, err := r.Query(ctx, "SHOW SLAVE STATUS")
	if err != nil {
		return err
	}
	if err := r.applied(ctx, status["Gtid_IO_Pos"]); err != nil {
		return err
	}
	stores, err := r.Query(ctx, "SELECT GROUP_CONCAT(table_schema) AS names FROM information_schema.tables WHERE table_name='primary_term'")
	if err != nil {
		return err
	}
	promote := []string{"STOP SLAVE", "RESET SLAVE ALL"}
	for name := range strings.SplitSeq(stores["names"], ",") {
		if name != "" {
			promote = append(promote, "INSERT INTO `"+name+"`.primary_term (id, term, server) VALUES (1, 2, @@server_id) "+
				"ON DUPLICATE KEY UPDATE term=term+1, server=@@server_id")
		}
	}
	err = r.Exec(ctx, append(promote, "SET GLOBAL rpl_semi_sync_slave_enabled=0, GLOBAL rpl_semi_sync_master_enabled=1, GLOBAL read_only=0")...)
	if err != nil {
		return err
	}
	p.Primary, p.Replica = p.Replica, p.Primary
	return p.Primary.setRole(primaryRole)
}

// Rejoin starts the replica again in its role, which the old primary has after
// a Promote, has it follow the primary, and waits until it has caught up and
// acknowledges commits. One that holds commits which the primary does not have
// cannot follow and is an error: RestartEmpty it first.
func (p *DatabasePair) Rejoin(ctx context.Context) error {
	if err := p.Replica.setRole(replicaRole); err != nil {
		return err
	}
	if err := p.Replica.Restart(); err != nil {
		return err
	}
	return p.attach(ctx)
}

// attach has the replica, which has its role, follow the primary.
func (p *DatabasePair) attach(ctx context.Context) error {
	host, port, err := net.SplitHostPort(p.Primary.Addr)
	if err != nil {
		return err
	}
	if err := p.foreign(ctx); err != nil {
		return err
	}
	err = p.Replica.Exec(ctx, "STOP SLAVE", "SET GLOBAL gtid_slave_pos=@@GLOBAL.gtid_current_pos",
		fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='%s', MASTER_PORT=%s, MASTER_USER='replicator', MASTER_PASSWORD='replicator', "+
			"MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos", host, port), "START SLAVE")
	if err != nil {
		return err
	}
	if err := p.Sync(ctx); err != nil {
		return err
	}
	return p.acknowledging(ctx)
}

// foreign is an error if the replica has commits that the primary does not. The
// primary would notice when asked for what follows them, but only once it has
// commits of its own.
func (p *DatabasePair) foreign(ctx context.Context) error {
	last := func(d *Database) (position string, sequence uint64, err error) {
		row, err := d.Query(ctx, "SELECT @@GLOBAL.gtid_current_pos AS position")
		if err != nil || row["position"] == "" {
			return "", 0, err
		}
		// domain-server-sequence, of the only domain
		position = row["position"]
		sequence, err = strconv.ParseUint(position[strings.LastIndexByte(position, '-')+1:], 10, 64)
		return position, sequence, err
	}
	has, theirs, err := last(p.Replica)
	if err != nil {
		return err
	}
	knows, ours, err := last(p.Primary)
	if err != nil {
		return err
	}
	if theirs > ours || theirs == ours && has != knows {
		return fmt.Errorf("mariadbd at %s is at %s, which its primary, at %s, does not know", p.Replica.Addr, has, knows)
	}
	return nil
}

// Sync waits until the replica has applied all that the primary has committed
// by now.
func (p *DatabasePair) Sync(ctx context.Context) error {
	row, err := p.Primary.Query(ctx, "SELECT @@GLOBAL.gtid_current_pos AS position")
	if err != nil {
		return err
	}
	return p.Replica.applied(ctx, row["position"])
}

// applied waits until a replica has applied a position; one that cannot get
// there by itself is an error at once.
func (d *Database) applied(ctx context.Context, position string) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	var broken error
	err := poll(ctx, d.Exited(), func(ctx context.Context) error {
		row, err := d.Query(ctx, "SELECT MASTER_GTID_WAIT(?, 0.05) AS late", position)
		if err != nil || row["late"] == "0" {
			return err
		}
		status, err := d.Query(ctx, "SHOW SLAVE STATUS")
		if err != nil {
			return err
		}
		const unknown = "1236" // the primary does not have what this one asks for
		if status["Last_IO_Errno"] == unknown || status["Last_SQL_Errno"] != "0" {
			broken = fmt.Errorf("mariadbd at %s does not follow: %s %s", d.Addr, status["Last_IO_Error"], status["Last_SQL_Error"])
			return nil
		}
		return fmt.Errorf("mariadbd at %s is at %s of %s", d.Addr, status["Gtid_IO_Pos"], position)
	})
	return errors.Join(err, broken)
}

// acknowledging waits until commits of the primary wait for the replica.
func (p *DatabasePair) acknowledging(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	return poll(ctx, p.Primary.Exited(), func(ctx context.Context) error {
		clients, err := p.Primary.Query(ctx, "SHOW STATUS LIKE 'Rpl_semi_sync_master_clients'")
		if err != nil {
			return err
		}
		on, err := p.Primary.Query(ctx, "SHOW STATUS LIKE 'Rpl_semi_sync_master_status'")
		if err != nil {
			return err
		}
		if clients["Value"] == "0" || on["Value"] != "ON" {
			return fmt.Errorf("the primary has %s replicas that acknowledge, semi-sync is %s", clients["Value"], on["Value"])
		}
		return nil
	})
}

// setRole is for the next start.
func (d *Database) setRole(role string) error {
	return d.writeConf(filepath.Join(d.Dir, mariadbConf), role)
}
