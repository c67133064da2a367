// Command sluice is the flash-sale engine: a server, and the tools around it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// commands are the words of the command line.
type commands struct {
	Serve   serveCommand   `cmd:"" help:"Run the server."`
	Storm   stormCommand   `cmd:"" help:"Load a server with a flash sale of its own and audit every reply."`
	Audit   auditCommand   `cmd:"" help:"Prove that ledger, orders and money agree; exit 1 if they do not."`
	Bus     busCommand     `cmd:"" help:"Export, import or read again the messages of a bus on Kafka."`
	Doctor  doctorCommand  `cmd:"" help:"Check the machine and the configuration before a sale."`
	Config  configCommand  `cmd:"" help:"Check or print the configuration."`
	Token   tokenCommand   `cmd:"" help:"Sign a shopper's token with the data directory's key."`
	Draw    drawCommand    `cmd:"" help:"Check the draw of a waiting room, as anybody can; exit 1 if it does not hold."`
	Wal     walCommand     `cmd:"" help:"Look into the ledger's log."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// errViolation: the command did its work, and what it found is bad.
var errViolation = errors.New("violations were found")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c commands
	k := kong.Parse(&c, kong.Name("sluice"), kong.UsageOnError(),
		kong.Description("A self-hosted flash-sale engine: never oversold, never a lost order."),
		kong.BindTo(ctx, (*context.Context)(nil)))
	if err := k.Run(); err != nil {
		if !errors.Is(err, errViolation) {
			fmt.Fprintln(os.Stderr, "sluice:", err)
		}
		os.Exit(1)
	}
}
