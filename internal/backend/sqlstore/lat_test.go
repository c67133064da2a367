package sqlstore
import ("testing";"time";"slices";"context";"os";"syscall";"strconv"
"sluice/internal/order";"sluice/internal/stock")
func cpu() time.Duration { var r syscall.Rusage; syscall.Getrusage(0,&r); return time.Duration(r.Utime.Nano()+r.Stime.Nano()) }
func TestLatency(t *testing.T) {
	s := openStore(t)
	token, _ := s.Fence(t.Context(), "wal")
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func(){ defer close(done); if os.Getenv("CKPT")=="" {return}; for ctx.Err()==nil { w,err:=s.Checkpoint(ctx); _ = err; if !w {time.Sleep(100*time.Millisecond)} else {time.Sleep(100*time.Millisecond)} } }()
	var at stock.Cursor
	var lat []time.Duration
	var total, tc time.Duration
	N,_:=strconv.Atoi(os.Getenv("N"))
	ev := os.Getenv("NOEV")==""
	for d:=0; d<N; {
		b := order.Batch{Log:"wal",Token:token,From:at,Orders:landedOrders(d,500)}
		if !ev { for i:=range b.Orders { b.Orders[i].Events=nil } }
		d+=500
		b.To=stock.Cursor{Log:"wal",Epoch:1,Position:uint64(d)}
		t0:=time.Now(); c0:=cpu()
		if err:=s.Land(t.Context(),b);err!=nil{t.Fatal(err)}
		e:=time.Since(t0); lat=append(lat,e); total+=e; tc+=cpu()-c0
		at=b.To
	}
	stop(); <-done
	slices.Sort(lat)
	q:=func(p float64) time.Duration {return lat[int(p*float64(len(lat)-1))]}
	t.Log(total, "cpu/order", tc/time.Duration(N), "p50",q(.5),"p90",q(.9),"p99",q(.99),"max",q(1), "rate", float64(N)/total.Seconds())
	t0:=time.Now(); n:=0; c0:=cpu()
	_,und,err:=s.Snapshot(t.Context(),"flash-1",func(o order.Order) error {n++;return nil})
	t.Log("snapshot", n, len(und), err, time.Since(t0), cpu()-c0)
}
