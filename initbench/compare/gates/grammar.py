"""The grammar of gates, as lark reads it; docs/ci.md says what it means."""

ROW = r"(?:[^\W\d](?:[\w.-]*\w)?\.)?"
GRAMMAR = rf"""
?start: disjunction
?disjunction: conjunction (_OR conjunction)*           -> any_of
?conjunction: condition (_AND condition)*              -> all_of
?condition: _NOT condition                             -> opposite
          | comparison
          | "(" disjunction ")"
comparison: sum (RELATION sum)+                         -> chain
          | sum NEAR sum _WITHIN constant              -> near
?sum: product
    | sum PLUS product                                  -> binary
    | sum MINUS product                                 -> binary
?product: unary
        | product TIMES unary                           -> binary
        | product DIVIDE unary                          -> binary
?unary: MINUS unary                                     -> minus
      | atom
?atom: constant
     | quantity
     | AGGREGATE "(" sum ")"                            -> aggregate
     | FUNCTION "(" sum ")"                            -> function
     | "(" sum ")"
constant: NUMBER PERCENT?
quantity: EARLIER? (STRING ".")? measure
?measure: REFERENCE                                     -> metric
        | LAYER "[" INTEGER "]" "." WORD "@" WORD       -> layer
        | OVER_LAYERS "(" WORD "@" WORD ")"             -> over_layers
        | STEPS_TO "(" constant ")"                     -> steps_to

RELATION: "<=" | ">=" | "==" | "!=" | "<" | ">" | "≤" | "≥" | "≠"
NEAR: "≈" | "~="
PLUS: "+"
MINUS: "-" | "−"
TIMES: "*" | "×"
DIVIDE: "/" | "÷"
PERCENT: "%"
NUMBER: /(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?/
INTEGER: /[-−]?[0-9]+/
STRING: /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/s
WORD: /[^\W\d]\w*/
REFERENCE: /{ROW}[^\W\d]\w*/
EARLIER.5: /before\.(?=["'])/
AGGREGATE.5: /(?:mean|min|max)(?=\s*\()/
LAYER.5: /{ROW}layer(?=\s*\[)/
OVER_LAYERS.5: /{ROW}(?:slope|max_layer|min_layer)(?=\s*\()/
STEPS_TO.5: /{ROW}steps_to(?=\s*\()/
_OR.5: /or(?![\w.])/
_AND.5: /and(?![\w.])/
_NOT.5: /not(?![\w.])/
_WITHIN.5: /within(?![\w.])/
FUNCTION.5: /(?:abs|exp|ln)(?=\s*\()/

%ignore /\s+/
"""
