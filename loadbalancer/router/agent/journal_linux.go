package agent

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// journal is an open journal; end is where the next record goes.
type journal struct {
	f   *os.File
	end int64
}

// openJournal opens a journal and cuts what is behind its last whole record.
func openJournal(path string, end int64) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // in the state directory
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > end {
		if err = f.Truncate(end); err == nil {
			err = f.Sync()
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &journal{f: f, end: end}, nil
}

// reserve makes sure that so many bytes have room on the disk.
func (j *journal) reserve(n int) error {
	err := unix.Fallocate(int(j.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, j.end, int64(n)) //nolint:gosec // a file descriptor
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil // then the write finds out
	}
	if err != nil {
		return fmt.Errorf("reserve %d bytes: %w", n, err)
	}
	return nil
}

// append writes and syncs a record. After an error the record is gone, or the
// disk is not to be trusted; either way nothing is appended any more.
func (j *journal) append(record []byte) error {
	_, err := j.f.WriteAt(record, j.end)
	if err == nil {
		if err = unix.Fdatasync(int(j.f.Fd())); err == nil { //nolint:gosec // a file descriptor
			j.end += int64(len(record))
			return nil
		}
	}
	return errors.Join(err, j.f.Truncate(j.end))
}

func (j *journal) close() { _ = j.f.Close() } // all is synced
