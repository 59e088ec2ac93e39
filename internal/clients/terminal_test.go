//go:build linux

package clients

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is psql on a terminal of its own, typed at.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	read   chan struct{} // closed when psql has closed the terminal

	mu    sync.Mutex
	shown strings.Builder
	seen  int // length of what was waited for already
}

// openTerminal makes a pseudo-terminal.
func openTerminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	defer func() {
		if err != nil {
			_ = master.Close()
		}
	}()
	if err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, fmt.Errorf("unlock the terminal: %w", err)
	}
	number, err := unix.IoctlGetUint32(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, fmt.Errorf("number of the terminal: %w", err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open the terminal's other end: %w", err)
	}
	return master, slave, nil
}

// prompt is psql's state, in full: database, kind of input, state of the transaction.
const prompt = "%/%R%x> "

// typeTo starts psql on a terminal and waits for its first prompt.
func typeTo(t *testing.T, s side, database string) *terminal {
	t.Helper()
	master, slave, err := openTerminal()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := command(ctx, "psql", "-X", "-n", "-P", "pager=off", "-v", "PROMPT1="+prompt, "-v", "PROMPT2="+prompt, "-d", s.url(database))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	_ = slave.Close() // psql has its own
	term := &terminal{t: t, master: master, cmd: cmd, read: make(chan struct{})}
	go term.follow()
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // of a psql that had to be killed
		<-term.read
		_ = master.Close()
	})
	term.await(database + "=> ")
	return term
}

func (term *terminal) follow() {
	defer close(term.read)
	buffer := make([]byte, 4096)
	for {
		n, err := term.master.Read(buffer)
		term.mu.Lock()
		term.shown.WriteString(strings.ReplaceAll(string(buffer[:n]), "\r", ""))
		term.mu.Unlock()
		if err != nil {
			return // EIO: psql is gone
		}
	}
}

// screen is all that was shown so far.
func (term *terminal) screen() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.shown.String()
}

// terminalTimeout bounds the wait for an answer; far below the sleeps that are to be cancelled.
const terminalTimeout = 10 * time.Second

// await waits until the text is shown, behind what was waited for before.
func (term *terminal) await(text string) {
	term.t.Helper()
	deadline := time.Now().Add(terminalTimeout)
	for {
		screen := term.screen()
		if at := strings.Index(screen[term.seen:], text); at >= 0 {
			term.seen += at + len(text)
			return
		}
		if time.Now().After(deadline) {
			term.t.Fatalf("%q is not shown, only\n%s", text, screen)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (term *terminal) press(text string) {
	term.t.Helper()
	if _, err := term.master.WriteString(text); err != nil {
		term.t.Fatal(err)
	}
}

// enter types a line and waits for the prompt.
func (term *terminal) enter(line, prompt string) {
	term.t.Helper()
	term.press(line + "\n")
	term.await(prompt)
}

// interrupt types a statement that sleeps, waits until it sleeps on so many servers, and presses Ctrl-C.
func (term *terminal) interrupt(statement, marker string, servers []string, prompt string) {
	term.t.Helper()
	term.press(statement + "\n")
	waitForSleepers(term.t, servers, marker)
	begun := time.Now()
	term.press("\x03")
	term.await("ERROR:  canceling statement due to user request\n")
	term.await(prompt)
	if took := time.Since(begun); took > 3*time.Second {
		term.t.Errorf("%s: cancelled after %s", statement, took)
	}
}

// quit leaves psql and returns all that was shown.
func (term *terminal) quit() string {
	term.t.Helper()
	term.press("\\q\n")
	<-term.read
	if err := term.cmd.Wait(); err != nil {
		term.t.Errorf("psql: %v", err)
	}
	return term.screen()
}

func TestTerminalCtrlC(t *testing.T) {
	ensureShop(t)
	const one = `select pg_sleep(60);`
	const all = `select id, pg_sleep(61) from customers;`
	const ordered = `select id, name, pg_sleep(62) from customers order by id;`
	const key = `update customers set name = 'never' where id = 5 and pg_sleep(63) is not null;`
	use := func(t *testing.T, s side, home, shards []string) string {
		term := typeTo(t, s, "shop")
		term.interrupt(one, "pg_sleep(60)", home, "shop=> ")
		term.enter(`select 'still here';`, "shop=> ")
		term.interrupt(all, "pg_sleep(61)", shards, "shop=> ")
		term.enter(`select name from customers where id = 5;`, "shop=> ")
		term.interrupt(ordered, "pg_sleep(62)", shards, "shop=> ")
		term.enter(`begin;`, "shop=*> ")
		term.enter(`update customers set name = 'changed' where id = 5;`, "shop=*> ")
		term.interrupt(all, "pg_sleep(61)", shards, "shop=!> ")
		term.enter(`select 1;`, "shop=!> ")
		term.enter(`rollback;`, "shop=> ")
		term.enter(`select name from customers where id = 5;`, "shop=> ")
		term.enter(`begin;`, "shop=*> ")
		term.enter(`savepoint s;`, "shop=*> ")
		term.interrupt(key, "pg_sleep(63)", nil, "shop=!> ")
		term.enter(`rollback to s;`, "shop=*> ")
		term.enter(`select name from customers where id = 5;`, "shop=*> ")
		term.enter(`commit;`, "shop=> ")
		term.press("select 'half")
		term.await("select 'half")
		term.press("\x03")
		term.await("shop=> ")
		term.enter(`select 2;`, "shop=> ")
		return term.quit()
	}
	want := use(t, plain, []string{bed.Plain.ConnString(0, "shop")}, []string{bed.Plain.ConnString(0, "shop")})
	var shards []string
	for i := range bed.Shards.Shards() {
		shards = append(shards, bed.Shards.ConnString(i, "shop"))
	}
	if d := difference(want, use(t, routed, shards[:1], shards)); d != "" {
		t.Error(d)
	}
	for _, marker := range []string{"pg_sleep(60)", "pg_sleep(61)", "pg_sleep(62)", "pg_sleep(63)"} {
		waitUntilIdle(t, marker)
	}
}

// TestTerminalPrompts compares psql's prompts, which show the state of the transaction that the router tells.
func TestTerminalPrompts(t *testing.T) {
	ensureShop(t)
	lines := [][2]string{
		{`begin;`, "=*> "},
		{`select name from customers where id = 1;`, "=*> "},
		{`select`, "-*> "},
		{`name from customers where id = 2;`, "=*> "},
		{`savepoint a;`, "=*> "},
		{`insert into customers values (1, 'x');`, "=!> "},
		{`select 1;`, "=!> "},
		{`rollback to a;`, "=*> "},
		{`selec;`, "=!> "},
		{`commit;`, "=> "},
		{`start transaction read only;`, "=*> "},
		{`delete from customers where id = 1;`, "=!> "},
		{`rollback;`, "=> "},
		{`begin; insert into plain values (95, 'x'); commit and chain;`, "=*> "},
		{`delete from plain where id = 95; end;`, "=> "},
		{`select (`, "(> "},
		{`1);`, "=> "},
		{`begin \; select nosuch \; select 2;`, "=!> "},
		{`rollback;`, "=> "},
		{`copy plain from stdin;`, ">> "},
		{"96\tcopied\t\\N", ">> "},
		{`\.`, "=> "},
		{`copy plain from stdin;`, ">> "},
		{"97", ">> "},
		{`\.`, "=> "},
		{`delete from plain where id = 96;`, "=> "},
		{`set client_min_messages = debug1;`, "=> "},
		{`reset client_min_messages;`, "=> "},
		{`\errverbose`, "=> "},
	}
	var screens [2]string
	for i, s := range sides {
		term := typeTo(t, s, "shop")
		for _, line := range lines {
			term.enter(line[0], line[1])
		}
		screens[i] = term.quit()
	}
	if d := difference(screens[0], screens[1]); d != "" {
		t.Error(d)
	}
}
