package gate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"

	"sluice/internal/stock"
)

// Condition is what must hold of a user for him to buy.
type Condition struct {
	ID       string `json:"id" pattern:"^[a-z0-9][a-z0-9_-]{0,39}$" doc:"Told to whoever it refuses; label of its metrics"`
	Activity string `json:"activity,omitempty" maxLength:"64" doc:"Only purchases of this activity"`
	Mode     string `json:"mode" enum:"on,shadow,off" doc:"shadow: counted as if it were on, and refuses nobody"`
	When     string `json:"when" minLength:"1" maxLength:"500" doc:"Who may buy: a condition on user, phone, level, region, newcomer and groups, as the token tells them (what it does not tell is \"\", 0, false and [])" example:"level >= 2 or \"vip\" in groups"`
}

// Bounds of conditions: what one purchase may cost is known before it is asked.
const (
	// maxMet is how many conditions that are not off one activity can have, those
	// for every activity included.
	maxMet   = 8
	maxWhen  = 500 // bytes
	maxNodes = 128 // of the expression's tree
)

// topic is one of the things that a condition can ask for; a set of them is
// their sum.
type topic uint8

const (
	aUser topic = 1 << iota
	aPhone
	aLevel
	aRegion
	aNewcomer
	aGroups
)

var topics = map[string]topic{"user": aUser, "phone": aPhone, "level": aLevel, "region": aRegion, "newcomer": aNewcomer, "groups": aGroups}

// What the language is cut down to. All that is left takes a time that its length
// bounds, and cannot fail at run time: there is no arithmetic, which divides by
// zero, no index, which is out of range, no range or function that makes much out of
// little, no pattern that is compiled per request, no choice, whose type is that of
// either branch.
var (
	operators = []string{"==", "!=", "<", "<=", ">", ">=", "and", "&&", "or", "||", "in", "contains", "startsWith", "endsWith"}
	overAll   = []string{"all", "any", "one", "none", "count"} // of groups, with a predicate
	ofOne     = []string{"len", "lower", "upper", "trim"}
)

// typed are the topics with a value of each one's type, to check expressions by.
func typed() map[string]any {
	return map[string]any{"user": "", "phone": "", "level": 0, "region": "", "newcomer": false, "groups": []string(nil)}
}

// compiled is an expression made ready, and what it asks for.
type compiled struct {
	program *vm.Program
	asks    topic
}

// compile makes an expression ready, or says in a line why it cannot be had.
func compile(when string) (compiled, error) {
	limits := conf.CreateNew()
	limits.MaxNodes = maxNodes
	tree, err := parser.ParseWithConfig(when, limits)
	if err != nil {
		return compiled{}, inALine(err)
	}
	var asks topic
	if err := allowed(tree.Node, false, &asks); err != nil {
		return compiled{}, err
	}
	program, err := expr.Compile(when, expr.Env(typed()), expr.AsBool(), expr.MaxNodes(maxNodes))
	if err != nil {
		return compiled{}, inALine(err)
	}
	return compiled{program, asks}, nil
}

// inALine leaves out the picture of where it is.
func inALine(err error) error {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return fmt.Errorf("%s", line)
}

// allowed walks an expression and notes what it asks for. A predicate may stand
// within no other: nested loops are the one way to make a short one slow.
func allowed(n ast.Node, within bool, asks *topic) error {
	all := func(nodes ...ast.Node) error {
		for _, n := range nodes {
			if err := allowed(n, within, asks); err != nil {
				return err
			}
		}
		return nil
	}
	switch n := n.(type) {
	case *ast.IntegerNode, *ast.StringNode, *ast.BoolNode:
		return nil
	case *ast.IdentifierNode:
		*asks |= topics[n.Value] // an unknown one is found by its lack of a type
		return nil
	case *ast.PointerNode:
		if within && n.Name == "" {
			return nil
		}
	case *ast.UnaryNode:
		return all(n.Node)
	case *ast.PredicateNode:
		return all(n.Node)
	case *ast.BinaryNode:
		if !slices.Contains(operators, n.Operator) {
			return fmt.Errorf("%q cannot be used; these can: %s", n.Operator, strings.Join(operators, " "))
		}
		if list, ok := n.Right.(*ast.ArrayNode); ok && n.Operator == "in" && literal(list) {
			return all(n.Left)
		}
		return all(n.Left, n.Right)
	case *ast.BuiltinNode:
		return allowedCall(n, within, asks)
	case *ast.CallNode:
		return noCall(n.Callee.String())
	}
	return fmt.Errorf("%q cannot be used in a condition", n.String())
}

func allowedCall(n *ast.BuiltinNode, within bool, asks *topic) error {
	loop := slices.Contains(overAll, n.Name)
	switch {
	case !loop && !slices.Contains(ofOne, n.Name), len(n.Arguments) == 0:
		return noCall(n.Name)
	case loop && within:
		return fmt.Errorf("%s cannot stand within another %s", n.Name, strings.Join(overAll, ", "))
	}
	// Of no other list there is anything to ask.
	if of, ok := n.Arguments[0].(*ast.IdentifierNode); loop && (!ok || of.Value != "groups") {
		return fmt.Errorf("%s can be asked of groups only", n.Name)
	}
	for i, argument := range n.Arguments {
		if err := allowed(argument, within || loop && i > 0, asks); err != nil {
			return err
		}
	}
	return nil
}

func noCall(name string) error {
	return fmt.Errorf("there is no %q; there are %s, and of groups %s", name, strings.Join(ofOne, ", "), strings.Join(overAll, ", "))
}

// literal is a list of nothing but texts, or nothing but numbers, of which the
// compiler makes a set.
func literal(list *ast.ArrayNode) bool {
	texts, numbers := 0, 0
	for _, n := range list.Nodes {
		switch n.(type) {
		case *ast.StringNode:
			texts++
		case *ast.IntegerNode:
			numbers++
		}
	}
	return len(list.Nodes) > 0 && (texts == len(list.Nodes) || numbers == len(list.Nodes))
}

// fault answers the field that is wrong and why, or nothing.
func (c *Condition) fault() (field, why string) {
	switch {
	case !validRuleID(c.ID):
		return "id", "1 to 40 of a-z, 0-9, - and _, beginning with a letter or digit"
	case c.Activity != "" && (len(c.Activity) > stock.MaxID || !printable(c.Activity)):
		return "activity", "must be the id of an activity"
	case c.Mode != On && c.Mode != Shadow && c.Mode != Off:
		return "mode", fmt.Sprintf("%q is none of on, shadow, off", c.Mode)
	case len(c.When) > maxWhen:
		return "when", fmt.Sprintf("%d bytes; %d at most", len(c.When), maxWhen)
	}
	if _, err := compile(c.When); err != nil {
		return "when", err.Error()
	}
	return "", ""
}

// fewMeet bounds how many conditions can meet in one purchase.
func fewMeet(conditions []Condition) error {
	met := map[string]int{}
	for i, c := range conditions {
		if c.Mode == Off {
			continue
		}
		met[c.Activity]++
		for activity, n := range met {
			if activity != "" {
				n += met[""]
			}
			if n > maxMet {
				return &RuleError{fmt.Sprintf("eligibility[%d].activity", i), fmt.Sprintf(
					"%d conditions concern activity %q; %d at most can meet in one purchase, join some of them with and", n, activity, maxMet)}
			}
		}
	}
	return nil
}
