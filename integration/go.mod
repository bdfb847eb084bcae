module github.com/admit-go/admit/integration

go 1.25.0

require (
	github.com/admit-go/admit v0.0.0
	github.com/go-chi/chi/v5 v5.5.0
	github.com/gorilla/mux v1.8.1
	github.com/justinas/alice v1.2.0
	github.com/rs/cors v1.11.1
)

replace github.com/admit-go/admit => ../
