module github.com/admit-go/admit/integration

go 1.25.0

require (
	github.com/admit-go/admit v0.0.0
	github.com/elnormous/contenttype v1.0.4
	github.com/go-chi/chi/v5 v5.5.0
	github.com/golang/gddo v0.0.0-20190904175337-72a348e765d2
	github.com/gorilla/handlers v1.5.2
	github.com/gorilla/mux v1.8.1
	github.com/justinas/alice v1.2.0
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822
	github.com/rs/cors v1.11.1
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/felixge/httpsnoop v1.0.3 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)

replace github.com/admit-go/admit => ../
