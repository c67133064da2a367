package sqlstore

import "strings"

// ordersTable is a table of orders and the statements on it. A database has one,
// plainOrders, unless it holds several groups of shards: then each has its own.
type ordersTable struct {
	name                       string
	get, update, byReservation string
	insertPlain, insertOrder   insertion
}

var plainOrders = ordersIn("orders")

func ordersIn(table string) *ordersTable {
	return &ordersTable{
		name: table,
		get:  "SELECT " + orderColumns + " FROM " + table + " WHERE id = ?",
		update: "UPDATE " + table + " SET state = ?, version = ?, expires_at = ?, check_at = ?, " + mutableColumns +
			" WHERE id = ? AND version = ?",
		byReservation: "SELECT 1 FROM " + table + " WHERE activity = ? AND epoch = ? AND bucket = ? AND number = ?",
		insertPlain:   insertInto(table, plainColumns, plainCount),
		insertOrder:   insertInto(table, plainColumns+extraColumns, plainCount+extraCount),
	}
}

// ofBucket goes along the unique key that orders have by reservation.
const ofBucket = "activity = ? AND epoch = ? AND bucket = ? AND log = ?"

// ordersOf reads orders from any of these tables, in one order; the values of
// the condition are bound once for each table.
func ordersOf(columns, where, sort string, tables ...*ordersTable) string {
	each := make([]string, len(tables))
	for i, t := range tables {
		each[i] = "SELECT " + columns + " FROM " + t.name + " WHERE " + where
	}
	return strings.Join(each, " UNION ALL ") + " ORDER BY " + sort
}

// undeliveredOf finds messages by order, those that a bus has and nobody has
// consumed yet too. A key that is no number (a reminder's) casts to 0, which is
// no order. The messages are few, the orders many: hence the order of the tables.
// The values of the condition are bound undeliveredTimes for each table.
func undeliveredOf(d *dialect, where string, tables ...*ordersTable) string {
	var each []string
	for _, t := range tables {
		of := d.inOrder + " " + t.name + " o ON o.id = CAST(m.msg_key AS " + d.signed + ") WHERE " + where
		each = append(each,
			"SELECT m.id, m.msg_key, m.topic, m.at, NULL, 0, NULL FROM outbox m "+of,
			"SELECT m.id, m.msg_key, m.topic, m.at, NULL, m.attempts, m.reason FROM outbox_failed m "+of,
			"SELECT m.id, m.msg_key, m.topic, m.at, NULL, 0, NULL FROM outbox_sent m "+of)
	}
	return strings.Join(each, " UNION ALL ") + " ORDER BY 1"
}

const undeliveredTimes = 3
