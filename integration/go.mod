module github.com/admit-go/admit/integration

go 1.25.0

require github.com/admit-go/admit v0.0.0

replace github.com/admit-go/admit => ../
