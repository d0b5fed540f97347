package nft

import "errors"

// ErrRefused is returned when the kernel refuses a transaction. What ran before
// still runs.
var ErrRefused = errors.New("kernel refuses the nftables transaction")
