package challenge

// Solve reads the answer out of a token, for rehearsals that play people without
// eyes: whoever has the shop's secret could as well sign himself a clearance. False
// for a token that is not of this user and activity.
func Solve(secret []byte, activity, user, token string) (answer int, ok bool) {
	_, q, ok := newSealer(secret).open(token, activity, user)
	return int(q.answer), ok
}
