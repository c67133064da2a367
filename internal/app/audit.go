package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"time"

	"sluice/internal/backend/walstock"
	"sluice/internal/proof"
	"sluice/internal/stock"
)

// Audit proves every activity: offline on the data directory if no server
// holds it, else by the ops API of the server that does, or of the fleet.
func Audit(ctx context.Context, c Config, log *slog.Logger) ([]proof.Report, error) {
	if c.fleet() { // only its processes together know how the books stand
		return auditOnline(ctx, c)
	}
	if _, err := os.Stat(c.StorePath()); err != nil && !c.onServer() {
		return nil, fmt.Errorf("there is nothing to audit: %w; give the server's --data", err)
	}
	unlock, err := Lock(c.Data)
	if errors.Is(err, ErrLocked) {
		return auditOnline(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	d, err := openDoors(ctx, c, log)
	if err != nil {
		return nil, err
	}
	reports, err := auditOffline(ctx, d)
	return reports, errors.Join(err, d.close())
}

func auditOffline(ctx context.Context, d *doors) ([]proof.Report, error) {
	auditor := proof.New(d.store, d.wal, walstock.LogID, d.clock.Now)
	activities, err := d.store.Activities(ctx)
	if err != nil {
		return nil, err
	}
	var reports []proof.Report
	for _, a := range activities {
		r, err := auditor.Check(ctx, a.ID)
		if errors.Is(err, stock.ErrNoSuchActivity) && d.board.Face(a.ID) == nil {
			continue // nothing was ever allocated
		}
		if err == nil {
			r, err = proof.Beside(ctx, d.store, r)
		}
		if err != nil {
			return nil, fmt.Errorf("activity %s: %w", a.ID, err)
		}
		reports = append(reports, r)
	}
	return reports, nil
}

// auditOnline asks the server that runs on the data directory.
func auditOnline(ctx context.Context, c Config) ([]proof.Report, error) {
	token := c.token()
	if token == "" {
		token = demoOpsToken
	}
	ask := func(path string, into any) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Ops+path, nil)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		client := http.Client{Timeout: time.Minute}
		resp, err := client.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
		if err != nil {
			return err
		}
		if resp.StatusCode == http.StatusNotFound {
			return stock.ErrNoSuchActivity
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answered %s: %.300s", path, resp.Status, body)
		}
		return json.Unmarshal(body, into)
	}
	var list struct {
		Activities []struct {
			ID    string `json:"id"`
			State string `json:"state"`
		} `json:"activities"`
	}
	if err := ask("/v1/activities", &list); err != nil {
		return nil, fmt.Errorf("the ops API at %s, which would know, does not answer: %w", c.Ops, err)
	}
	var reports []proof.Report
	for _, a := range list.Activities {
		if a.State == "draft" || a.State == "scheduled" {
			continue
		}
		var r proof.Report
		err := ask("/v1/activities/"+url.PathEscape(a.ID)+"/proof", &r)
		if errors.Is(err, stock.ErrNoSuchActivity) {
			continue // nothing was ever allocated
		}
		if err != nil {
			return nil, err
		}
		reports = append(reports, r)
	}
	return reports, nil
}
