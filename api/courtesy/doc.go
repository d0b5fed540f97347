// Package courtesy lets events give way to the writes that somebody waits for.
//
// A Service that comes makes three events. In a burst of Services these are a third of
// what we ask of the API server, which has the addresses and statuses of other
// Services to write at the same time. So an event is kept here until nothing that
// matters has been written for a moment, and for half a minute at most. Events are
// sent one after the other, in their order. Other writes that can wait are marked by
// their callers, see Later.
//
// Who creates an event gets the answer of success at once. One that cannot be sent
// is tried again for two minutes, as client-go would; with the process, those that wait are lost, as those
// in client-go's own queue are.
package courtesy
